"""Trainings that take what callers corrected."""

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlpserve_model import Manifest, Store
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_model.store.evidence.reviews import ACCEPTED, REJECTED, Reviews
from mlpserve_trainer import DataError, Outcome, Rules, TrainSettings, load_recipe, train
from mlpserve_trainer.cli import main
from mlpserve_trainer.corrections.collect import CorrectionSettings, recall
from mlpserve_trainer.datasets import DataLocations, Dataset
from mlpserve_trainer.training.reproduction import reproduce
from tests.support.corrections import correction
from tests.support.faults import fail_at


@pytest.fixture
def settings(tmp_path: Path, stripes: Dataset) -> TrainSettings:
    np.savez(
        tmp_path / "stripes.npz", X=stripes.inputs, y=np.array(["a", "b", "c"])[stripes.labels]
    )
    knobs = {"hidden": (8,), "epochs": 10, "batch_size": 8, "learning_rate": 0.01}
    return TrainSettings(
        store=tmp_path / "store",
        recipe=load_recipe("quick", dataset="npz", **knobs),
        data_dir=tmp_path / "stripes.npz",
        corrections=CorrectionSettings(place=tmp_path / "feedback", source_share=1),
        unless_unchanged=True,
    )


@pytest.fixture
def place(tmp_path: Path) -> FeedbackPlace:
    return FeedbackPlace(tmp_path / "feedback")


def new_kind(count: int, source: str = "aa", seed: int = 1) -> list[ReportRecord]:
    """Images of a kind that no training row is like: the last pixel alone is bright; of class b."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 4, 4))
    images[:, 3, 3] = 250
    return [correction((image / 255).astype(np.float32), "b", source) for image in images]


def accept(place: FeedbackPlace, reports: Sequence[ReportRecord]) -> None:
    for report in reports:
        place.record(report)
        Reviews(place, "mnist").add(report.tag, ACCEPTED)


def published(settings: TrainSettings, outcome: Outcome) -> Manifest:
    return Store(settings.store, settings.model).verify(outcome.version)


def test_accepted_corrections_are_learnt_and_the_manifest_says_of_whom(
    settings: TrainSettings, place: FeedbackPlace
) -> None:
    before = train(settings)
    assert before.metrics.get("live_accuracy") is None
    for report in new_kind(60, "bb", seed=3):
        place.record(report)  # nobody has reviewed these
    assert train(settings).verdict == "UNCHANGED"
    accept(place, new_kind(60))
    after = train(settings)
    assert after.verdict == "PROMOTED"
    assert after.metrics["live_accuracy"] > 0.9
    manifest = published(settings, after)
    facts = manifest.extra["corrections"]
    assert facts["sources"] == {"aa": facts["rows"]}
    assert facts["live_holdout"] > 5
    assert manifest.extra["sources"][-1]["rows"] == facts["rows"]
    store = Store(settings.store, settings.model)
    listed = json.loads(store.document(after.version, "corrections.json", 2**20))
    assert len(listed["training"]) == facts["rows"]
    for name in ("report.html", "model_card.md"):
        assert (
            f"{facts['rows']} rows of 1 sources"
            in store.document(after.version, name, 2**24).decode()
        )
    reasons = " ".join(after.reasons)
    assert "corrections do no harm" in reasons
    assert f"live holdout of {facts['live_holdout']} rows" in reasons
    assert train(settings).verdict == "UNCHANGED"


def test_a_version_that_unlearns_the_corrections_does_not_pass_the_gate(
    settings: TrainSettings, place: FeedbackPlace
) -> None:
    train(settings)
    accept(place, new_kind(100))
    train(settings)
    # The same corrections for the live holdout alone.
    assert settings.corrections is not None
    forgetful = replace(settings, corrections=replace(settings.corrections, share=0), seed=5)
    outcome = train(replace(forgetful, unless_unchanged=False))
    assert outcome.verdict == "REJECTED"
    assert "failed: live holdout" in outcome.reasons[0]


def test_after_a_revocation_the_training_is_what_it_were_without_the_source(
    settings: TrainSettings, place: FeedbackPlace, tmp_path: Path
) -> None:
    honest, false = new_kind(30), new_kind(30, "ff", seed=2)
    accept(place, honest)
    without = train(replace(settings, store=tmp_path / "other"))
    accept(place, false)
    assert train(settings).digest != without.digest
    Reviews(place, "mnist").revoke("ff", "reports nonsense")
    again = train(settings)
    assert again.digest == without.digest
    assert published(settings, again).extra["corrections"]["sources"].keys() == {"aa"}


def test_a_version_with_corrections_is_reproduced_while_they_are_there(
    settings: TrainSettings, place: FeedbackPlace, tmp_path: Path
) -> None:
    accept(place, new_kind(30))
    outcome = train(settings)
    store, places = Store(settings.store, "mnist"), DataLocations(None, tmp_path)
    Reviews(place, "mnist").revoke("aa", "whatever became of them since")
    assert reproduce(store, outcome.version, places).identical
    moved = tmp_path / "moved"
    (tmp_path / "feedback").rename(moved)
    assert reproduce(store, outcome.version, places, feedback=moved).identical
    with pytest.raises(DataError, match="corrections are no longer in"):
        reproduce(store, outcome.version, places)


def test_corrections_that_make_the_holdout_worse_are_refused(
    settings: TrainSettings, place: FeedbackPlace, stripes: Dataset
) -> None:
    train(settings)
    rows = np.random.default_rng(4).permutation(np.flatnonzero(stripes.labels == 0))[:90]
    noise = np.random.default_rng(5).integers(0, 9, (90, 4, 4))
    images = (np.clip(stripes.inputs[rows].astype(int) + noise, 0, 255) / 255).astype(np.float32)
    accept(place, [correction(image, "b", "ff") for image in images])
    assert settings.corrections is not None
    greedy = replace(
        settings, corrections=replace(settings.corrections, share=1.0), rules=Rules(margin=1)
    )
    outcome = train(greedy)
    assert "corrections were refused: corrections make it worse" in " ".join(outcome.reasons)
    assert outcome.metrics["accuracy"] == 1
    facts = published(settings, outcome).extra["corrections"]
    assert facts["rows"] == 0
    assert facts["refused"]["digest"].startswith("sha256:")
    assert "refused, since they made the holdout worse" in (
        Store(settings.store, "mnist").document(outcome.version, "report.html", 2**24).decode()
    )
    assert train(greedy).verdict == "UNCHANGED"  # refused once is enough


def command(settings: TrainSettings, *words: str) -> int:
    assert settings.corrections is not None
    return main(["feedback", *words, "--feedback", str(settings.corrections.place)])


def test_corrections_are_reviewed_from_the_command_line(
    settings: TrainSettings, place: FeedbackPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = new_kind(3) + new_kind(2, "bb", seed=3)
    for report in reports:
        place.record(report)
    train(replace(settings, corrections=None))
    assert command(settings, "list") == 0
    assert "5 corrections: 5 pending" in capsys.readouterr().out
    store = ("--store", str(settings.store))
    assert command(settings, "show", reports[0].tag[:10], *store) == 0
    shown = capsys.readouterr().out
    assert "truth       b" in shown
    assert "@@\n\n" in shown  # the picture, its last pixel bright
    assert "training rows of version 1 that are nearest" in shown
    assert "DISTANCE  LABEL  ROW" in shown
    assert command(settings, "show", reports[0].tag, "--json", *store) == 0
    rows = json.loads(capsys.readouterr().out)["nearest"]
    assert [row["distance"] for row in rows] == sorted(row["distance"] for row in rows)
    assert len(rows) == 5
    assert {row["label"] for row in rows} <= set("abc")
    assert command(settings, "show", reports[0].tag, "--store", f"{settings.store}-none") == 0
    assert "unknown: " in capsys.readouterr().out
    assert command(settings, "accept", reports[0].tag[:10], reports[1].tag) == 0
    assert command(settings, "reject", "--source", "bb", "--reason", "smeared") == 0
    assert command(settings, "list", "--state", "all", "--json") == 0
    *_, listed = capsys.readouterr().out.splitlines()
    states = {document["tag"]: document["state"] for document in json.loads(listed)}
    expected = ["accepted", "accepted", "pending", "rejected", "rejected"]
    assert [states[report.tag] for report in reports] == expected
    assert command(settings, "show", reports[4].tag) == 0
    assert "rejected by" in capsys.readouterr().out
    assert command(settings, "revoke", "aa", "--reason", "nonsense") == 0
    assert command(settings, "list") == 0
    assert "3 revoked" in capsys.readouterr().out


def test_what_several_proven_sources_agree_on_is_accepted_at_once(
    settings: TrainSettings, place: FeedbackPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    for report in new_kind(4) + new_kind(2, "bb"):  # both report the first two images
        place.record(report)
    assert command(settings, "auto", "--auto-accept", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["agreed"] == []  # nobody knows them
    accept(place, new_kind(5, "aa", seed=8) + new_kind(5, "bb", seed=9))
    assert command(settings, "auto", "--auto-accept", "2", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["agreed"]) == 4
    assert command(settings, "list") == 0
    assert "2 pending, 10 accepted, 4 agreed" in capsys.readouterr().out


def test_a_suspect_source_is_held_back_and_never_accepted_as_a_whole(
    settings: TrainSettings, place: FeedbackPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = [r for i in range(12) for r in new_kind(4, f"{i:02x}", seed=i)]
    false = [replace(report, truth="c") for report in new_kind(12, "ff", seed=99)]
    accept(place, honest[:24])
    for report in honest[24:] + false:
        place.record(report)
    for report in false[:8]:
        Reviews(place, "mnist").add(report.tag, REJECTED)
    assert command(settings, "list") == 0
    shown = capsys.readouterr().out
    assert "4 suspect" in shown
    assert "suspect: ff, 8 of 8 of its reports are contradicted" in shown
    assert command(settings, "show", false[-1].tag) == 0
    assert "suspect     8 of 8" in capsys.readouterr().out
    assert command(settings, "accept", "--source", "ff") == 2
    assert "ff is suspect, 8 of 8" in capsys.readouterr().err
    assert command(settings, "accept", false[-1].tag) == 0
    assert command(settings, "reject", "--source", "ff") == 0
    assert "rejected: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("accept",), "give tags, or --source"),
        (("accept", "ab", "--source", "aa"), "give tags, or --source"),
        (("show", "ffff"), "no correction has a tag"),
        (("show", ""), "2 corrections have tags"),
        (("accept", "../../../escaped"), "no correction has a tag"),
        (("revoke", "../escaped", "--reason", "r"), "no source has"),
        (("revoke", "9", "--reason", "r"), "no source has"),
        (("reject", "--source", ""), "several sources have"),
        (("auto",), "--auto-accept is required"),
    ],
)
def test_wrong_usage_says_what_to_do(
    settings: TrainSettings,
    place: FeedbackPlace,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    for report in new_kind(1) + new_kind(1, "bb", seed=2):
        place.record(report)
    assert command(settings, *words) == 2
    assert message in capsys.readouterr().err


def test_a_review_on_a_full_disk_fails_and_says_so(
    settings: TrainSettings,
    place: FeedbackPlace,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (report,) = new_kind(1)
    place.record(report)
    with monkeypatch.context() as full:
        fail_at(full, Path(str(place)), errno.ENOSPC, "fsync")
        assert command(settings, "accept", report.tag) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert command(settings, "list") == 0
    assert "1 pending" in capsys.readouterr().out


@pytest.mark.parametrize("tags", [["../../../escaped"], ["/etc/passwd"], ["0" * 32], [""]])
def test_a_hostile_list_of_corrections_reads_nothing_else(
    place: FeedbackPlace, tags: list[str]
) -> None:
    place.record(new_kind(1)[0])
    with pytest.raises(DataError, match="1 of 1 corrections are no longer in"):
        recall(Path(str(place)), "mnist", tags)


def test_a_place_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["feedback", "list"]) == 2
    assert "--feedback is required" in capsys.readouterr().err
    assert main(["train", "--auto-accept", "3"]) == 2
    assert "--auto-accept needs --corrections" in capsys.readouterr().err
