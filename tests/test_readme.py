"""The README is true: its commands, settings and files are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml

from pipelines import __main__, config
from pipelines.config import StrategySection
from pipelines.models.backbones import BACKBONES
from pipelines.quality.shortcuts import SHORTCUTS
from pipelines.transfer.adaptation import METHODS
from pipelines.transfer.strategies import STRATEGIES


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


def test_it_starts_with_the_two_commands_and_says_that_this_is_no_medical_device(readme: str) -> None:
    code = re.findall(r"```sh\n(.*?)```", readme, re.S)[0]
    assert [line.split("#")[0].strip() for line in code.splitlines()] == ["make demo", "make test"]
    assert "**Not a medical device.**" in readme


def test_every_command_has_its_row(readme: str) -> None:
    table = readme.split("## Commands")[1].split("\n\n")[1]
    named = {word for row in table.splitlines() for word in re.findall(r"`([\w-]+)[^`]*`", row.split("|")[1])}
    assert named == set(typer.main.get_command(__main__.app).commands)  # type: ignore[attr-defined]


def test_every_strategy_has_its_row_with_its_rate(readme: str) -> None:
    for name, strategy in STRATEGIES.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
        assert f"{strategy.learning_rate:g}" in row
    (default,) = re.findall(r"^\| `(\w+)` \(default\) \|", readme.split("`train.strategy.name`")[1], re.MULTILINE)
    assert default == StrategySection().name


def test_every_method_of_adaptation_has_its_row_and_its_weight(readme: str) -> None:
    section = readme.split("### A hospital without labels")[1].split("###")[0]
    assert all(f"| `{name}` |" in section for name in METHODS)
    weights = [f"{method.weight:g}" for method in METHODS.values() if method.in_steps]
    assert f"({', '.join(weights[:-1])} and {weights[-1]})" in section


def test_every_shortcut_has_its_row_and_is_called_blind_or_coarse(readme: str) -> None:
    for name, shortcut in SHORTCUTS.items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.endswith("| blind |" if shortcut.blind else "| coarse |")


def test_every_backbone_is_named(readme: str) -> None:
    assert all(f"`{name}`" in readme for name in BACKBONES)


def test_every_setting_it_uses_is_valid(readme: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(config.render(config.Config()))
    settings = re.findall(r"(?:--set|-S) '?([\w.]+=(?:\[[^\]]*\]|[^\s'`]+))", readme)
    assert len(settings) >= 4
    config.load(path, [setting for setting in settings if not setting.startswith("section.")])


def test_every_picture_and_folder_is_there(readme: str, repository: Path) -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme):
        assert (repository / target).is_file(), target
    for target in re.findall(r"`((?:pipelines|flows|benchmarks|docker|mlflow)/[\w./]*)`", readme):
        assert (repository / target).exists(), target


def test_the_example_of_several_tasks_is_valid_and_has_every_kind(readme: str) -> None:
    example = readme.split("### Several tasks on one network")[1].split("```yaml\n")[1].split("```")[0]
    task = config.validate(config.Config, yaml.safe_load(example), "README.md").task.declared()
    assert {head.kind for head in task.also} == {"binary", "multilabel", "multiclass", "ordinal", "regression"}
