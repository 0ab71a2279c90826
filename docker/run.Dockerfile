# Runs flows, predictions and the MLflow server on the CPU, from the same lock; small where a CPU build of PyTorch is reached
# (`--build-arg TORCH_BACKEND=cpu`), else the registry's ordinary build.
FROM python:3.12-slim-bookworm AS build
ARG TORCH_BACKEND=
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY docker/install.sh docker/install.sh
COPY pipelines pipelines
COPY flows flows
RUN TORCH_BACKEND="$TORCH_BACKEND" sh docker/install.sh /opt/radtransfer

FROM python:3.12-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 radtransfer \
    && install --directory --owner radtransfer /workspace /quarantine /received /weights /mlflow
COPY --from=build /opt/radtransfer /opt/radtransfer
COPY --chmod=0555 docker/mlflow-server.sh /usr/local/bin/mlflow-server
ENV PATH=/opt/radtransfer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RADTRANSFER_QUARANTINE=/quarantine \
    RADTRANSFER_INBOX=/received \
    RADTRANSFER_WEIGHTS=/weights
USER 10001
WORKDIR /workspace
HEALTHCHECK --interval=5m --timeout=60s CMD ["radtransfer", "--version"]
ENTRYPOINT ["radtransfer"]
CMD ["--help"]
