"""Tasks as they are declared: what makes two of them answer otherwise."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pipelines.records import Head, Task

AGE = Head("regression", ("years",), name="age", unit="years", bounds=(0.0, 100.0))
TASK = Task("binary", ("opacity",), also=(AGE,))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({}, ""),
        ({"weight": 2.0, "weighting": "uncertainty", "also": (dataclasses.replace(AGE, weight=3.0),)}, ""),
        ({"targets": ("mass",)}, "task.targets is [opacity], the model's is [mass]"),
        ({"also": (dataclasses.replace(AGE, bounds=None),)}, "task.also.age.bounds is [0.0, 100.0], the model's is null"),
        ({"also": ()}, "other tasks"),
    ],
)
def test_tasks_differ_in_what_they_answer_and_not_in_how_much_their_losses_weigh(other: dict[str, Any], words: str) -> None:
    assert TASK.differing(dataclasses.replace(TASK, **other)) == words
