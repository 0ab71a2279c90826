"""git and DVC: versions of the data, and reproducing one stage. The only module that starts either."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipelines import children
from pipelines.errors import ServiceError
from pipelines.paths import Paths

# dvc in words of Python: while it loads, its own command would answer an interrupt with a traceback
_DVC = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); from dvc.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class DataVersion:
    """One version of `data/`: its DVC hash, the git commit that records it, and what was done to get there."""

    data_hash: str
    commit: str
    changed: bool
    pushed: bool

    def describe(self) -> str:
        what = "new version" if self.changed else "unchanged"
        where = "pushed to the DVC remote" if self.pushed else "kept in the local DVC cache (no remote is configured)"
        return f"data/ {what}: [bold]{self.data_hash[:12]}[/bold], git commit {self.commit[:10]}, {where}"


def environment() -> dict[str, str]:
    """The environment for child processes: this interpreter's commands first on PATH, DVC's analytics off."""
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": here + os.pathsep + os.environ.get("PATH", ""), "DVC_NO_ANALYTICS": "true"}


def call(folder: Path, *command: str) -> str:
    """Run a git or DVC command in `folder` and give its standard output.

    Raises:
        ServiceError: the command is not installed or failed; its last words are in the message.
    """
    try:
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ServiceError(f"{command[0]}: expected on PATH, found nothing; install it") from error
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip())[-800:]
        if busy := re.search(r"is busy, .*?\(PID (\d+)\)", words, re.DOTALL):
            raise ServiceError(f"the workspace is in use by process {busy[1]}; try again when that has ended")
        raise ServiceError(f"`{' '.join(command[:3])}` ended with {done.returncode} in the workspace: {words}")
    return done.stdout


def head(paths: Paths) -> str | None:
    """The commit that the workspace stands on, or None before the first one."""
    try:
        return call(paths.workspace, "git", "rev-parse", "--verify", "HEAD").strip()
    except ServiceError:
        return None


def is_dirty(paths: Paths) -> bool:
    """Whether files that git tracks in the workspace differ from the last commit."""
    return bool(call(paths.workspace, "git", "status", "--porcelain", "--untracked-files=no", "--", ".").strip())


def data_hash(paths: Paths) -> str | None:
    """The hash of `data/` that `data.dvc` records, or None while it is not versioned."""
    if not paths.data_dvc.is_file():
        return None
    recorded: str = yaml.safe_load(paths.data_dvc.read_text())["outs"][0]["md5"]
    return recorded


def version_data(paths: Paths, message: str) -> DataVersion:
    """Record `data/` with DVC, commit `data.dvc` and params.yaml with `message`, and push where a default remote is configured.

    Raises:
        ServiceError: git or DVC failed; `data/` is as it was, and the same call may be repeated.
    """
    before = data_hash(paths)
    call(paths.workspace, "dvc", "add", "--quiet", "data")
    after = data_hash(paths)
    if after is None:
        raise ServiceError("`dvc add data` ended well but left no data.dvc")
    commit(paths, [paths.data_dvc, paths.params, paths.workspace / ".gitignore"], message)
    pushes = remote(paths) is not None
    if pushes:
        call(paths.workspace, "dvc", "push", "--quiet", "data.dvc")
    return DataVersion(after, head(paths) or "", after != before, pushes)


def remote(paths: Paths) -> str | None:
    """The name of DVC's default remote, or None where none is configured."""
    try:
        return call(paths.workspace, "dvc", "remote", "default").strip() or None
    except ServiceError as error:
        if "No default remote set" in str(error):
            return None
        raise


def commit(paths: Paths, files: Sequence[Path], message: str) -> bool:
    """Commit just `files`, leaving whatever else is staged; say whether there was anything to commit."""
    names = [str(file.relative_to(paths.workspace)) for file in files if file.exists()]
    call(paths.workspace, "git", "add", "--", *names)
    if not call(paths.workspace, "git", "status", "--porcelain", "--", *names).strip():
        return False
    call(paths.workspace, "git", *_identity(paths), "commit", "--quiet", "--message", message, "--", *names)
    return True


def _identity(paths: Paths) -> tuple[str, ...]:
    """A committer for machines on which git knows none, such as a scheduled worker."""
    try:
        call(paths.workspace, "git", "config", "user.email")
    except ServiceError:
        return ("-c", "user.name=radtransfer", "-c", "user.email=radtransfer@localhost")
    return ()


def initialise(folder: Path) -> None:
    """Make `folder` a git repository with DVC, unless it is one already."""
    if not (folder / ".git").exists():
        call(folder, "git", "init", "--quiet", "--initial-branch=main")
    if not (folder / ".dvc").is_dir():
        call(folder, "dvc", "init", "--quiet")
        call(folder, "dvc", "config", "core.analytics", "false")
        call(folder, "dvc", "config", "core.autostage", "true")


def is_current(paths: Paths) -> bool:
    """Whether no stage's inputs, parameters or outputs changed since it last ran.

    Raises:
        ServiceError: DVC cannot tell, for example while another process works in the workspace.
    """
    return not json.loads(call(paths.workspace, "dvc", "status", "--json"))


def reproduce(paths: Paths, stage: str) -> None:
    """Run one stage through DVC, which skips it when nothing changed; its own output goes to standard error.

    Raises:
        ServiceError: the stage or DVC failed; the stage has said why.
    """
    command = (sys.executable, "-P", "-c", _DVC, "repro", "--quiet", "--single-item", stage)
    with children.started(command, environment(), folder=paths.workspace, out=sys.stderr.fileno()) as dvc:
        code = dvc.wait()
    if code:
        # quiet, DVC keeps even its own errors to itself, such as that another process works here; asked again it tells them
        is_current(paths)
        raise ServiceError(f"stage {stage} failed (`dvc repro` ended with {code}); its own message is above")
