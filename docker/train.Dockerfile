# Trains on CUDA: the registry's ordinary PyTorch build brings CUDA; the host needs NVIDIA's driver and container toolkit.
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY docker/install.sh docker/install.sh
COPY pipelines pipelines
COPY flows flows
RUN sh docker/install.sh /opt/radtransfer

FROM python:3.12-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 radtransfer \
    && install --directory --owner radtransfer /workspace /quarantine /received /weights
COPY --from=build /opt/radtransfer /opt/radtransfer
ENV PATH=/opt/radtransfer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    RADTRANSFER_QUARANTINE=/quarantine \
    RADTRANSFER_INBOX=/received \
    RADTRANSFER_WEIGHTS=/weights
USER 10001
WORKDIR /workspace
HEALTHCHECK --interval=5m --timeout=60s CMD ["radtransfer", "--version"]
ENTRYPOINT ["radtransfer"]
CMD ["--help"]
