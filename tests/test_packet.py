"""The review packet: self-contained, complete, escaped, and frank."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import evaluated_workspace
import numpy as np
import pandas as pd
import pytest

from pipelines import packet
from pipelines.metrics.intervals import Interval
from pipelines.metrics.paired import Gain
from pipelines.packet import Packet
from pipelines.stages import evaluate

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects the words, the addresses and the elements of a page, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.sources, self.tags, self.open = "", [], set(), []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "action", "srcset", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += " ".join(data.split()) + " " if "style" not in self.open else ""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packet]:
    """What the stage gives to `render`, by kind of task."""
    given: dict[str, Packet] = {}
    render = packet.render
    with pytest.MonkeyPatch.context() as patch:
        for kind in evaluated_workspace.TASKS:
            settings, paths = evaluated_workspace.make(tmp_path_factory.mktemp(f"packet-{kind}"), kind)

            def keep(facts: Packet, kind: str = kind) -> str:
                given[kind] = facts
                return render(facts)

            patch.setattr(packet, "render", keep)
            evaluate.run(settings, paths, commit="f" * 40)
    return given


@pytest.fixture(scope="module")
def said(facts: dict[str, Packet]) -> str:
    return Page(packet.render(facts["binary"])).words


@pytest.mark.parametrize("kind", evaluated_workspace.TASKS)
def test_the_packet_asks_for_nothing_outside_itself(facts: dict[str, Packet], kind: str) -> None:
    text = packet.render(facts[kind])
    page = Page(text)
    assert page.open == []
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"@import|url\(", text)
    assert "default-src 'none'" in text


def test_the_same_facts_give_the_same_bytes(facts: dict[str, Packet]) -> None:
    assert packet.render(facts["binary"]) == packet.render(facts["binary"])


@pytest.mark.parametrize(
    "words",
    [
        "Opacity on chest radiographs",
        "This is not a medical device.",
        "On 20 test images of 10 patients",
        "data quality passed with 1 warning",
        "the most specific threshold with a sensitivity of at least 90%",
        "validation part before any test image was looked at",
        "67 files found",
        "5 set aside not a DICOM file 2 truncated file 3",
        "62 de-identified radiographs 31 patients",
        "2 not used pixels cannot be decoded 1 without a label 1",
        "60 labelled radiographs 30 patients",
        "site 2",
        "patients in more than one part 0",
        "shapes",
        "a million photographs",
        "Apache-2.0",
        "d" * 64,
        "60 tensors matched, 2 left over",
        "resnet10, strategy differential , seed 17",
        "f" * 40,
    ],
)
def test_the_packet_says(said: str, words: str) -> None:
    assert words in said


@pytest.mark.parametrize("kind", evaluated_workspace.TASKS)
def test_every_metric_is_there_with_its_interval(facts: dict[str, Packet], kind: str) -> None:
    words = Page(packet.render(facts[kind])).words
    for name, found in facts[kind].evaluation.macro.items():
        scale, digits, sign = (100, 1, "%") if name in packet.FRACTIONS else (1, 3, "")
        ends = "" if found.low is None else f" {found.low * scale:.{digits}f}–{found.high * scale:.{digits}f}{sign}"
        assert f"{found.value * scale:.{digits}f}{sign}{ends}" in words
        if name != "ppv":  # for which the network's arithmetic decides who is called positive
            assert (found.low is None) == ((kind, name) in FEW)


# of the ten test patients fewer than five have an effusion, a bacterial or a viral pneumonia
FEW = {(kind, name) for kind in ("multilabel", "multiclass") for name in ("auroc", "auprc", "sensitivity")}


def test_what_too_few_patients_bear_has_no_interval_and_a_caution(facts: dict[str, Packet]) -> None:
    said = {kind: Page(packet.render(facts[kind])).words for kind in ("binary", "multilabel")}
    assert "There are fewer than 5 test patients with, or without, effusion: the AUROC has no interval" in said["multilabel"]
    assert "the AUROC has no interval" not in said["binary"]


def test_mistakes_are_shown_with_pseudonym_probability_and_evidence(facts: dict[str, Packet]) -> None:
    page, shown = Page(packet.render(facts["binary"])), facts["binary"]
    cases = [*shown.false_positives, *shown.false_negatives]
    assert cases
    assert len(shown.false_positives) <= 3
    for case in cases:
        assert case.image in page.words
        assert f"{case.probability:.3f}" in page.words
        assert packet.data_uri(case.picture, "image/png") in page.sources
        assert packet.data_uri(case.evidence, "image/png") in page.sources
    assert all(case.probability >= case.threshold for case in shown.false_positives)
    assert all(case.probability < case.threshold for case in shown.false_negatives)


def test_no_mistakes_are_said_to_be_none(facts: dict[str, Packet]) -> None:
    words = Page(packet.render(replace(facts["binary"], false_positives=[], false_negatives=[]))).words
    assert "No false positives on the test part." in words
    assert "No false negatives on the test part." in words


def test_text_from_outside_is_escaped(facts: dict[str, Packet]) -> None:
    text = packet.render(facts["binary"])
    assert "Images are &lt;sharp&gt;." in text
    assert "for &lt;tests&gt; only" in text
    assert "<sharp>" not in text


def test_few_test_images_are_said_aloud(said: str) -> None:
    assert "Read with care" in said
    assert "read the intervals, not the values" in said


def test_groups_that_are_too_small_get_no_number(said: str) -> None:
    assert "too few" in said


def test_weights_from_a_phantom_task_are_called_so(facts: dict[str, Packet]) -> None:
    card = facts["binary"].card
    passport = replace(evaluated_workspace.PASSPORT, source="phantom", trained_on="simulated shapes")
    words = Page(packet.render(replace(facts["binary"], card=replace(card, passport=passport)))).words
    assert "Pretrained on a phantom task." in words
    assert "pretrained on simulated images" in words
    assert "Treat this model as a demonstration." in words


def test_real_weights_are_not_called_a_phantoms(said: str) -> None:
    assert "phantom" not in said


def test_a_network_from_scratch_has_no_passport(facts: dict[str, Packet]) -> None:
    card = replace(facts["binary"].card, passport=None, weights=None)
    words = Page(packet.render(replace(facts["binary"], card=card))).words
    assert "None: the network was trained from scratch" in words
    assert "trained from scratch ranges" not in words


def test_a_packet_without_ingest_counts_or_commit_leaves_them_out(facts: dict[str, Packet]) -> None:
    words = Page(packet.render(replace(facts["binary"], ingest=None, commit=None))).words
    assert "files found" not in words
    assert "Git commit" not in words


def test_a_failed_verdict_is_plain_to_see(facts: dict[str, Packet]) -> None:
    quality = {**facts["binary"].quality, "passed": False}
    leakage = {**facts["binary"].leakage, "clean": False}
    words = Page(packet.render(replace(facts["binary"], quality=quality, leakage=leakage))).words
    assert "data quality failed" in words
    assert "the split leaks" in words


def test_the_template_lies_in_the_package() -> None:
    assert (Path(packet.__file__).parent / "packet.html.j2").is_file()


@pytest.mark.parametrize("kind", evaluated_workspace.TASKS)
def test_every_shortcut_stands_next_to_the_model_with_the_definition_of_the_alarm(facts: dict[str, Packet], kind: str) -> None:
    page, beyond = Page(packet.render(facts[kind])), facts[kind].shortcuts
    for name, found in beyond.audit["shortcuts"].items():
        assert f"{found['title']} {found['sees']}" in page.words
        assert f"{found['macro']['everyone']['value']:.3f}" in page.words
        assert f"{beyond.gains[name].macro.value:+.3f}".replace("-", "−") in page.words
    assert packet.data_uri(facts[kind].figures["shortcuts"], "image/svg+xml") in page.sources
    assert f"an AUROC surely above 0.55: the lower end of its interval, widened for {beyond.audit['looks']} looks" in page.words
    assert "No alarm. No shortcut that cannot see findings is known to tell the label." in page.words
    assert "no shortcut alarm" in page.words


def test_a_shortcut_alarm_is_among_the_first_things_said(facts: dict[str, Packet]) -> None:
    beyond = facts["binary"].shortcuts
    audit = json.loads(json.dumps(beyond.audit))
    audit["shortcuts"]["shape"]["macro"]["alarm"] = audit["shortcuts"]["shape"]["outputs"]["opacity"]["alarm"] = True
    words = Page(packet.render(replace(facts["binary"], shortcuts=replace(beyond, audit=audit)))).words
    start, alarm = words.index("Read with care"), "in these data the label can be told without seeing a finding, by shape."
    assert start < words.index(alarm) < words.index("Performance on the test part")
    assert "Alarm. In these data the label can be told without seeing a finding, by shape." in words
    assert "No alarm." not in words


def test_a_probe_that_no_epoch_bettered_is_told(facts: dict[str, Packet]) -> None:
    given = facts["binary"]
    history = pd.concat([given.history.head(1).assign(epoch=0), given.history], ignore_index=True)
    card = replace(given.card, training={**given.card.training, "best_epoch": 0})
    words = Page(packet.render(replace(given, history=history, card=card))).words
    assert "2 epochs, of which none bettered the probe that it began with, which was kept with its validation AUROC" in words


def test_why_a_strategy_was_recommended_is_told_as_it_was_said(facts: dict[str, Packet]) -> None:
    given, line = facts["binary"], "recommended: differential for 40 labelled images: best of all (MobileNetV2, children)"
    card = replace(given.card, strategy={**given.card.strategy, "recommended": line})
    assert f"{line.capitalize()[:1]}{line[1:]}." in Page(packet.render(replace(given, card=card))).words


def test_weights_learned_without_labels_under_another_split_are_warned_of(facts: dict[str, Packet]) -> None:
    given = facts["binary"]
    for split, warned in ((given.leakage["split_sha256"], False), ("0" * 64, True)):
        passport = replace(given.card.passport, source="ssl", notes=f"simclr; none of split {split[:16]} was looked at")
        words = Page(packet.render(replace(given, card=replace(given.card, passport=passport)))).words
        assert ("images of test patients may have been among them" in words) == warned


def test_a_model_that_is_no_better_than_a_shortcut_is_said_to_be_so(facts: dict[str, Packet]) -> None:
    beyond = facts["binary"].shortcuts
    words = {}
    for low, high in ((-0.01, 0.05), (0.02, 0.08)):
        gain = Gain(Interval(0.03, low, high), {"opacity": Interval(0.03, low, high)})
        told = replace(beyond, gains=dict.fromkeys(beyond.gains, gain))
        words[low] = " ".join(Page(packet.render(replace(facts["binary"], shortcuts=told))).words.split())
    assert "It is not shown that the model knows more than the best shortcut does." in words[-0.01]
    assert "+0.030 −0.010 to +0.050 : it is not shown that the model knows more than a shortcut" in words[-0.01]
    assert "t is not shown" not in words[0.02]


def test_an_adaptation_and_whether_it_helped_are_told(facts: dict[str, Packet]) -> None:
    given = facts["binary"]
    assert "Adapted to a hospital" not in Page(packet.render(given)).words
    adaptation = {
        "method": "coral",
        "describes": "features of both hospitals with the same covariances",
        "learnt_images": 1200,
        "learnt_patients": 900,
        "says": "harmed: AUROC on the target −0.1",
        "sites": ["another"],
        "warnings": ["opacity: collapse"],
    }
    training = {**given.card.training, "adaptation": adaptation, "discrepancy_by_epoch": [0.2, 0.1]}
    words = Page(packet.render(replace(given, card=replace(given.card, training=training)))).words
    assert "and adapted with 1,200 radiographs of 900 patients of another hospital, without labels" in words
    assert (
        "adapted to another hospital without labels: harmed: AUROC on the target −0.1. No test image is of that hospital" in words
    )
    assert "All images come from one site" not in words
    assert "Adapted to a hospital without labels by coral" in words
    assert "1,200 images of 900 patients" in words
    assert "Whether it helped: harmed: AUROC on the target −0.1 . Opacity: collapse." in words
    assert "of which the last was kept" in words


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (slice(None, None, 3), "test images are of it (site 2 under Subgroups); the figures over all pool them with"),
        (slice(None), "All test images are of that hospital."),
    ],
)
def test_which_test_images_are_of_the_hospital_that_a_model_was_adapted_to(
    facts: dict[str, Packet], others: slice, said: str
) -> None:
    given = facts["binary"]
    test = given.cohort["part"] == "test"
    cohort = given.cohort.assign(site="here")
    cohort.loc[cohort.index[test][others], "site"] = "there"
    adaptation = {"method": "adabn", "describes": "", "learnt_images": 1, "learnt_patients": 1, "says": "helped", "warnings": []}
    training = {**given.card.training, "adaptation": {**adaptation, "sites": ["there"]}}
    words = Page(packet.render(replace(given, cohort=cohort, card=replace(given.card, training=training)))).words
    assert said in words


@pytest.mark.parametrize("method", ["coral", "adabn"])
@pytest.mark.parametrize("unlabelled", ["here", "there"])
def test_a_model_that_was_adapted_to_images_of_anywhere_is_not_said_to_be_of_another_hospital(
    facts: dict[str, Packet], method: str, unlabelled: str
) -> None:
    given = facts["binary"]
    told = {"method": method, "describes": "", "learnt_images": 5, "learnt_patients": 4, "says": "helped", "warnings": []}
    training = {**given.card.training, "adaptation": {**told, "sites": []}}
    cohort = given.cohort.assign(site=np.where(given.cohort["part"].isna(), unlabelled, "here"))
    assert cohort["part"].isna().any()
    words = Page(packet.render(replace(given, cohort=cohort, card=replace(given.card, training=training)))).words
    assert "The model was adapted to the images without labels: helped. No test image is among them." in words
    assert ("All images come from one site." in words) == (unlabelled == "here")
    assert "adapted with 5 radiographs of 4 patients, without labels" in words
    assert not any(told in words for told in ("that hospital", "another hospital", "a hospital"))
