"""MLflow as it really is: a SQLite store, a server, and a version loaded where the project is not installed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import trained_workspace
from mlflow import MlflowClient

from pipelines import tracking, tracking_store
from pipelines.config import Config
from pipelines.errors import ServiceError
from pipelines.models.backbones import BACKBONES
from pipelines.paths import Paths
from pipelines.stages import register
from pipelines.stages.register import RegisterSummary
from pipelines.tracking import client

PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".pt2", ".joblib"}


@dataclass(frozen=True)
class Registered:
    config: Config
    paths: Paths
    summary: RegisterSummary

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=tracking_store.local_uri(self.paths))

    @property
    def version(self) -> tracking.Version:
        found = tracking.by_alias(self.paths, self.summary.model, "challenger")
        assert found is not None
        return found


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """One registration in a workspace whose path has a space."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    config, paths = trained_workspace.make(tmp_path_factory.mktemp("home") / "work space", store=False)
    return Registered(config, paths, register.run(config, paths))


@pytest.fixture(scope="module")
def package(registered: Registered) -> Path:
    """The folder of the version."""
    (folder,) = (registered.paths.mlflow / "artifacts" / "models").glob("m-*/artifacts")
    return folder


def test_a_version_holds_no_pickle(package: Path) -> None:
    names = [path for path in package.rglob("*") if path.is_file()]
    assert {"model.safetensors", "model.json", "radiograph_model.py"} <= {path.name for path in names}
    assert [path.name for path in names if path.suffix in PICKLES] == []
    # protocol 2 and later begin with this byte, and zip-archived checkpoints with PK
    assert [path.name for path in names if path.read_bytes()[:1] == b"\x80" or path.read_bytes()[:2] == b"PK"] == []


def test_a_version_names_neither_the_machine_nor_the_user(package: Path, registered: Registered) -> None:
    home = str(registered.paths.workspace.parent).encode()
    for path in package.rglob("*"):
        assert not path.is_file() or home not in path.read_bytes(), path.name
    assert re.search(r"(path|uri): /", (package / "MLmodel").read_text()) is None


def test_run_and_version_carry_no_user_and_no_command_line(registered: Registered) -> None:
    run = registered.client.get_run(registered.summary.run_id)
    assert {key: run.data.tags[key] for key in run.data.tags if key.startswith("mlflow.user")} == {"mlflow.user": "radtransfer"}
    assert run.data.tags["mlflow.source.name"] == "radtransfer"
    assert run.info.user_id == "radtransfer"


LOADED_ELSEWHERE = """
import importlib.util, json, socket, sys
# as where the project is not installed
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path = [entry for entry in sys.path if not entry.startswith(sys.argv[3])] + [p for p in sys.path if "site-packages" in p]
assert importlib.util.find_spec("pipelines") is None, "pipelines can still be imported"
def refuse(*_): raise AssertionError("asked for the network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
path = sys.argv[2]
content = open(path, "rb").read()
asked = {
    "path": path, "bytes": content, "list": [path, content, b"not DICOM" * 100],
    "frame": pandas.DataFrame({"dicom": [content, path]}), "dictionary": {"dicom": [path, content]},
}
answers = {name: json.loads(model.predict(item).to_json(orient="records")) for name, item in asked.items()}
ours = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "pipelines"}
print("ANSWER" + json.dumps({"answers": answers, "modules": ours}))
"""


BUILT_ALONE = """
import sys
from importlib import metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

there, asked = set(), sys.argv[1:]
while asked:
    name = canonicalize_name(asked.pop())
    if name not in there:
        there.add(name)
        needs = map(Requirement, metadata.requires(name) or [])
        asked += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
found = metadata.packages_distributions().items()
absent = {root for root, names in found if not there & set(map(canonicalize_name, names))} - {"pipelines"}
class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else self.finder.find_spec(name, path, target)


sys.meta_path = [Without(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
assert "mlflow" in absent

from pipelines.models import backbones
from pipelines.models.provenance import Normalisation

for name in (*backbones.BACKBONES, "timm:test_vit"):
    backbones.build(name, outputs=1, dropout=0.0, normalisation=Normalisation((0.5,) * 3, (0.25,) * 3))
    print(name)
"""


@pytest.fixture(scope="module")
def elsewhere(package: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What the version answers in a fresh process without the project and without a network."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "image").write_bytes(trained_workspace.radiograph())
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED_ELSEWHERE, str(package), str(folder / "image"), str(repository)],
        cwd=folder,
        env={**clean, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, dict[str, object]] = json.loads(done.stdout.partition("ANSWER")[2])
    return answer


def test_a_version_predicts_where_the_project_is_not_installed(elsewhere: dict[str, dict[str, object]], package: Path) -> None:
    assert set(elsewhere["modules"]) >= {"pipelines.tracking", "pipelines.inference", "pipelines.imaging.decode"}
    assert all(str(place).startswith(str(package / "code")) for place in elsewhere["modules"].values())


@pytest.mark.parametrize(("asked", "rows"), [("path", 1), ("bytes", 1), ("list", 3), ("frame", 2), ("dictionary", 2)])
def test_paths_and_bytes_get_the_same_answer_however_they_are_handed_over(
    asked: str, rows: int, elsewhere: dict[str, dict[str, list[dict[str, object]]]], registered: Registered
) -> None:
    answers = elsewhere["answers"][asked]
    assert [row["source"] for row in answers] == list(range(rows))
    expected = trained_workspace.write_model(registered.paths.workspace / "again").predict([trained_workspace.radiograph()])
    for row in answers[:2]:
        assert row["p_opacity"] == pytest.approx(float(expected["p_opacity"][0]), abs=1e-5)
        assert row["left_out"] is None
    for row in answers[2:]:
        assert (row["left_out"], row["p_opacity"], row["positive_opacity"]) == ("not_dicom", None, None)


def test_a_version_asks_for_every_distribution_that_its_code_imports(elsewhere: dict[str, dict[str, str]], package: Path) -> None:
    """Read from the sources of the modules that were loaded, imports within functions left out."""
    pattern = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)
    roots = {root for place in elsewhere["modules"].values() for root in pattern.findall(Path(place).read_text())}
    asked = [line.partition("==")[0] for line in (package / "requirements.txt").read_text().split()]
    # what mlflow itself brings
    brought = {part for name in (*asked, "sqlalchemy") for part in _top_level(name)}
    assert roots - brought - sys.stdlib_module_names == {"pipelines"}


def test_every_network_can_be_built_with_what_a_version_asks_for_alone() -> None:
    command = [sys.executable, "-c", BUILT_ALONE, *tracking.REQUIREMENTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {*BACKBONES, "timm:test_vit"}


def _top_level(distribution: str) -> set[str]:
    files = metadata.files(distribution) or []
    return {file.parts[0].partition(".")[0] for file in files}


def test_the_process_is_left_as_it_was(registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    assert registered.version.number == "1"
    assert dict(os.environ) == before
    assert not mlflow.is_tracking_uri_set()


def test_looking_for_a_version_makes_no_store(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert tracking.by_alias(paths, "chest-opacity", "champion") is None
    assert tracking.find(paths, "chest-opacity", {"model.sha256": "a"}) is None
    assert tracking.reachable(paths) is None
    assert list(tmp_path.iterdir()) == []


def test_an_alias_or_a_model_that_is_not_there_is_none(registered: Registered) -> None:
    assert tracking.by_alias(registered.paths, "chest-opacity", "champion") is None
    assert tracking.by_alias(registered.paths, "another-model", "challenger") is None
    assert tracking.find(registered.paths, "chest-opacity", {"model.sha256": "0" * 64}) is None


def test_weights_changed_in_the_store_are_refused(registered: Registered, package: Path) -> None:
    weights = package / "artifacts" / "model" / "model.safetensors"
    genuine = weights.read_bytes()
    with tracking.fetched(registered.paths, registered.version) as folder:
        assert (folder / "model.safetensors").read_bytes() == genuine
    weights.write_bytes(genuine[:-1] + b"\x00" + genuine[-1:])
    try:
        with (
            pytest.raises(ServiceError, match="chest-opacity version 1: expected weights"),
            tracking.fetched(registered.paths, registered.version),
        ):
            pytest.fail("altered weights were given")
    finally:
        weights.write_bytes(genuine)


def test_a_store_that_is_no_database_is_said_to_be_wrong(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    trained_workspace.write(paths.mlflow / "mlflow.db", "not a database" * 100)
    assert "file is not a database" in str(tracking.reachable(paths))
    with pytest.raises(ServiceError, match=r"MLflow at sqlite:.*file is not a database"):
        tracking.by_alias(paths, "chest-opacity", "champion")


def test_a_server_that_is_down_is_said_to_be_down_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    trouble = tracking.reachable(Paths(tmp_path))
    assert trouble is not None
    assert trouble.startswith("MLflow at http://127.0.0.1:9: ")
    assert "secret" not in trouble


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:p%40ss@mlflow.hospital:5000/base", "http://mlflow.hospital:5000/base"),
        ("postgresql://user:pass@db/mlflow?password=other", "postgresql://db/mlflow"),
        ("https://mlflow.hospital", "https://mlflow.hospital"),
    ],
)
def test_an_address_is_shown_without_credentials(uri: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_store.tracking_uri(Paths(tmp_path)) == uri
    assert tracking_store.public_uri(Paths(tmp_path)) == shown


def test_a_parameter_that_is_too_long_is_cut_and_says_so() -> None:
    cut = client.shortened(list(range(1000)))
    assert len(cut) == client.LONGEST_PARAMETER
    assert cut.endswith("… (4890 characters; the whole is in params.yaml)")
    assert client.shortened(0.001) == "0.001"


def test_requirements_are_exact_and_installable_anywhere() -> None:
    pins = tracking.requirements()
    assert any(pin.startswith("torch==") for pin in pins)
    assert all(re.fullmatch(r"[a-z-]+==[\d.]+(post\d+|rc\d+)?", pin) for pin in pins)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Paths]]:
    """The server that `radtransfer ui` starts, for an empty workspace."""
    paths = Paths(tmp_path_factory.mktemp("server"))
    paths.mlflow.mkdir()
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, **tracking_store.ui_environment(paths)}
    with (paths.workspace / "log").open("w") as log:
        command = tracking_store.ui_command(paths, port)
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=paths.workspace)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, paths.workspace / "log")
        yield f"http://someone:secret@127.0.0.1:{port}", paths
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"no MLflow server: {log.read_text()[-2000:]}")


def test_a_server_named_in_the_environment_gets_everything(
    server: tuple[str, Paths], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address, _ = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    config, paths = trained_workspace.make(tmp_path / "workspace", store=False)
    summary = register.run(config, paths)
    public = address.replace("someone:secret@", "")
    assert (summary.tracking_uri, summary.version, summary.aliases) == (public, "1", ("challenger",))
    assert summary.link == f"{public}/#/models/chest-opacity/versions/1"
    assert not list(paths.mlflow.rglob("*"))
    assert register.run(config, paths).already
    version = tracking.by_alias(paths, "chest-opacity", "challenger")
    assert version is not None
    with tracking.fetched(paths, version) as folder:
        assert pd.Series(path.name for path in folder.iterdir()).isin(["model.json", "model.safetensors"]).all()
    assert os.environ["MLFLOW_TRACKING_URI"] == address
    # standard output is for results, and MLflow would print the address with its password
    assert capfd.readouterr() == ("", "")


def test_the_servers_settings_file_names_what_the_server_asks_for_and_sets_no_secret(repository: Path) -> None:
    lines = (repository / "mlflow" / "server.env.example").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    asked = set(re.findall(r"\$\{(MLFLOW_\w+):\?", (repository / "docker" / "mlflow-server.sh").read_text()))
    assert asked
    assert asked <= set(settings)
    assert {name: settings[name] for name in asked} == dict.fromkeys(asked, "")
    assert [name for name in settings if re.search("PASSWORD|SECRET|URI", name) and settings[name]] == []
