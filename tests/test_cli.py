"""The command line as a user meets it: exit codes, messages, JSON, and a quick answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import __main__, actions, versioning, workspace
from pipelines.errors import QualityError, RadtransferError
from pipelines.paths import Paths

COMMANDS = (
    *("init", "ingest", "prepare", "check", "split", "audit-shortcuts", "train", "lr-find", "evaluate", "register"),
    *("receive", "predict", "run", "schedule", "ui", "demo", "doctor"),
)
runner = CliRunner()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "ws"
    workspace.create(Paths(folder))
    return folder


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    result = runner.invoke(__main__.app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_takes_the_common_options(command: str) -> None:
    code, out, _ = invoke(command, "--help")
    assert code == 0
    options = ("--set", "--json") if command == "init" else ("--workspace", "--set", "--json")
    assert all(option in out for option in options)


def test_help_loads_no_heavy_library() -> None:
    heavy = ("torch", "monai", "mlflow", "prefect", "pandas", "numpy", "great_expectations", "pydicom", "pydantic")
    code = (
        "import sys\nsys.argv = ['radtransfer', '--help']\n"
        "from pipelines.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"sys.exit(str([name for name in {heavy!r} if name in sys.modules]) if set({heavy!r}) & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_printed() -> None:
    assert invoke("--version") == (0, "radtransfer 0.1.0\n", "")


@pytest.mark.parametrize("command", ["prepare", "check", "split", "audit-shortcuts", "train", "evaluate", "register"])
def test_a_folder_that_is_no_workspace_ends_with_2(command: str, tmp_path: Path) -> None:
    code, out, err = invoke(command, "--workspace", tmp_path)
    assert code == 2
    assert out == ""
    assert "found no params.yaml" in err


@pytest.mark.parametrize("command", ["prepare", "check", "split", "audit-shortcuts", "train", "evaluate", "register"])
def test_a_stage_whose_input_is_missing_ends_with_1_and_names_the_one_before(command: str, empty: Path) -> None:
    code, out, err = invoke(command, "--workspace", empty, "--set", "task.targets=[opacity]", "--json")
    assert code == 1, err
    failure = json.loads(out)
    assert failure["error"] == "MissingInputError"
    assert failure["exit_code"] == 1
    assert "run" in failure["message"]
    assert "`radtransfer " in failure["message"] or "run it first" in failure["message"]


def test_a_wrong_setting_ends_with_2(empty: Path) -> None:
    code, _, err = invoke("train", "--workspace", empty, "--set", "train.epoch=3")
    assert code == 2
    assert "did you mean epochs?" in err


def test_an_unknown_option_ends_with_2() -> None:
    assert invoke("train", "--nonsense")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--nonsense"), "No such option: --nonsense"),
        (("bogus",), "No such command 'bogus'."),
        (("init",), "Missing argument 'DIR'."),
    ],
)
def test_a_wrong_command_line_is_told_in_json_too(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["radtransfer", *arguments, "--json"])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 2
    assert json.loads(capsys.readouterr().out) == {"error": "UsageError", "message": message, "exit_code": 2}


def test_init_keeps_settings_and_commits_them(tmp_path: Path) -> None:
    assert invoke("init", tmp_path / "ws", "--set", "train.epochs=3")[0] == 0
    assert "  epochs: 3  # most epochs" in (tmp_path / "ws" / "params.yaml").read_text()
    assert not versioning.is_dirty(Paths(tmp_path / "ws"))


def test_init_with_a_wrong_setting_makes_nothing(tmp_path: Path) -> None:
    code, _, err = invoke("init", tmp_path / "ws", "--set", "train.epoch=3")
    assert code == 2
    assert "did you mean epochs?" in err
    assert not (tmp_path / "ws").exists()


def test_init_where_a_file_is_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    code, _, err = invoke("init", tmp_path / "notes")
    assert code == 2
    assert "expected a folder" in err


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    code, out, _ = invoke("init", tmp_path / "chest [2024] x")
    assert code == 0
    assert "chest [2024] x" in out


def test_ingest_without_a_key_ends_with_2_and_says_how_to_make_one(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RADTRANSFER_PSEUDONYM_KEY", raising=False)
    (tmp_path / "labels.csv").write_text("SOPInstanceUID,finding\n1.2.3,1\n")
    code, _, err = invoke("ingest", tmp_path, "--labels", tmp_path / "labels.csv", "--workspace", empty)
    assert code == 2
    assert "RADTRANSFER_PSEUDONYM_KEY" in err
    assert "secrets.token_hex" in err


def test_an_empty_folder_becomes_a_workspace_by_ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Paths] = []

    def fail(paths: Paths, *_: object) -> None:
        seen.append(paths)
        raise RadtransferError("stop here")

    monkeypatch.setattr(actions, "ingest_and_version", fail)
    assert invoke("ingest", tmp_path, "--workspace", tmp_path / "new")[0] == 1
    assert seen[0].params.is_file()


def test_the_text_of_an_unforeseen_error_is_withheld(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.stages import prepare

    def quote(*_: object) -> None:
        raise ValueError("cannot parse DOE^JANE")

    monkeypatch.setattr(prepare, "run", quote)
    code, out, err = invoke("prepare", "--workspace", empty)
    assert code == 1
    assert "DOE" not in out + err
    assert "ValueError" in err
    assert "RADTRANSFER_DEBUG=1" in err


def test_our_own_errors_keep_their_words(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.stages import check

    def fail(*_: object) -> None:
        raise QualityError("prevalence of [opacity]: expected 0.02…0.98, got 1.0")

    monkeypatch.setattr(check, "run", fail)
    code, _, err = invoke("check", "--workspace", empty)
    assert code == 1
    assert "prevalence of [opacity]: expected 0.02…0.98, got 1.0" in err.replace("\n", "")


def test_doctor_speaks_of_each_subject(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADTRANSFER_PSEUDONYM_KEY", raising=False)
    code, out, _ = invoke("doctor", "--workspace", empty, "--json")
    report = json.loads(out)
    states = {finding["subject"]: finding["state"] for finding in report["findings"]}
    assert code == 0, report
    assert states["Python"] == states["git"] == states["dvc"] == states["workspace"] == states["decoders"] == "ok"
    assert states["pseudonym key"] == "note"
    assert {"torch", "weights", "MLflow", "Prefect", "data"} <= set(states)


@pytest.mark.parametrize(
    ("weights", "strategy", "missing"),
    [("scratch", "recommended", False), ("imagenet", "scratch", False), ("scratch", "full", True)],
)
def test_doctor_misses_no_weights_where_none_are_asked_for(empty: Path, weights: str, strategy: str, missing: bool) -> None:
    settings = ("--set", f"train.weights={weights}", "--set", f"train.strategy.name={strategy}")
    _, out, _ = invoke("doctor", "--workspace", empty, *settings, "--json")
    states = {finding["state"] for finding in json.loads(out)["findings"] if finding["subject"] == "weights"}
    assert ("missing" in states) == missing


def test_doctor_ends_with_1_where_something_is_missing(tmp_path: Path) -> None:
    code, out, _ = invoke("doctor", "--workspace", tmp_path)
    assert code == 1
    assert "something is missing" in out
