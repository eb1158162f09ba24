"""What false corrections do to the next version, by who reports them and how they are accepted.

A network is trained on the first 20,000 images of MNIST. Callers send test images that are turned
by 20 degrees, and correct its mistakes; one report in five is false: a 4 is said to be a 9. The
accuracy that counts is that on turned images that nobody has sent. The new version is a
challenger; the judge decides on audited answers, of which the same share of labels is false.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mlpserve_model import CHALLENGER, Store, StoredModel
from mlpserve_model.store.evidence.corrections import SUSPECT
from mlpserve_model.store.evidence.inbox import Inbox
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_model.store.evidence.reviews import ACCEPTED, REJECTED, Reviews
from mlpserve_trainer import Outcome, Rules, TrainSettings, load_recipe, train
from mlpserve_trainer.corrections.collect import CorrectionSettings
from mlpserve_trainer.judge.judge import Judge, JudgeSettings
from tests.support.corrections import correction

__all__ = ["attack"]

TRAINED, SENT = 20_000, 5000
HONEST, HONEST_TOKENS = 1000, 40
FALSE = HONEST // 4  # one report in five
AUDITED = 2000
LOOKED_AT = 5  # corrections of each source, by a reviewer who sees the truth
VICTIM, CLAIM = 4, "9"
FALSE_NOTE = "false"  # what a reviewer sees in the picture

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Crowd:
    """Who reports, and how it is accepted.

    Attributes:
        false_tokens: Tokens of the false reports.
        accepted: Of all sources what a person accepts: "all", "five" that the person has looked
            at, "none".
        auto_accept: As the flag.
        sleepers: Whether the false tokens report the truth first, until they are proven.
        careful: Whether they take fours of which the version is unsure.
        revoked: Whether the false tokens are revoked in the end.
    """

    false_tokens: int
    accepted: str = "all"
    auto_accept: int | None = None
    sleepers: bool = False
    careful: bool = False
    revoked: bool = False


REVIEWED = Crowd(0, accepted="five", auto_accept=2)
CROWDS: Mapping[str, Crowd] = {
    "honest, all accepted": Crowd(0),
    "ten tokens that agree, nobody reviews, --auto-accept 2": Crowd(10, "none", auto_accept=2),
    "honest, five of each reviewed, --auto-accept 2": REVIEWED,
    "one token, five of each reviewed, --auto-accept 2": replace(REVIEWED, false_tokens=1),
    "ten tokens, five of each reviewed, --auto-accept 2": replace(REVIEWED, false_tokens=10),
    "ten sleepers, five of each reviewed, --auto-accept 2": replace(
        REVIEWED, false_tokens=10, sleepers=True
    ),
    "ten careful sleepers, five of each reviewed, --auto-accept 2": replace(
        REVIEWED, false_tokens=10, sleepers=True, careful=True
    ),
    "one token, all accepted unseen": Crowd(1),
    "ten tokens, all accepted unseen": Crowd(10),
    "ten tokens, all accepted unseen, then revoked": Crowd(10, revoked=True),
}


def attack(images: Images, labels: Labels, test: Images, test_labels: Labels, folder: Path) -> Any:
    """Return the figures of the version after each crowd, beside that before."""
    np.savez(folder / "base.npz", X=images[:TRAINED], y=labels[:TRAINED])
    settings = TrainSettings(
        store=folder / "before",
        recipe=load_recipe("quick", dataset="npz"),
        data_dir=folder / "base.npz",
        rules=Rules(min_accuracy=0.5),
    )
    turned = _turned(test)
    unseen = turned[SENT:], test_labels[SENT:]
    before = train(settings)
    model = Store(settings.store, "mnist").load(before.version)
    rows = {"before": _figures(settings, before, unseen)}
    for number, (name, crowd) in enumerate(CROWDS.items()):
        place, store = folder / f"reports-{number}", folder / f"store-{number}"
        shutil.copytree(folder / "before", store)
        reports = list(_reports(crowd, model, turned[:SENT], test_labels[:SENT]))
        _record(FeedbackPlace(place), reports, crowd)
        corrections = CorrectionSettings(place=place, auto_accept=crowd.auto_accept, quota=10_000)
        trained = replace(settings, store=store, corrections=corrections, alias=CHALLENGER)
        found, _ = Inbox(FeedbackPlace(place), "mnist", corrections).evaluate()
        held_back = {c.report.source for c in found if c.state == SUSPECT}
        rows[name] = {
            **_figures(trained, train(trained), unseen),
            "suspects": len(held_back),
            "false_suspects": sum(not source.startswith("ff") for source in held_back),
            "decision": _decision(trained, crowd, unseen),
        }
        print(f"{name}: {rows[name]}", flush=True)
    return rows


def _turned(images: Images) -> Images:
    turned = ndimage.rotate(images.astype(np.float32), 20, axes=(1, 2), reshape=False, order=1)
    pixels: Images = np.clip(np.rint(turned), 0, 255).astype(np.uint8)
    return pixels


def _reports(
    crowd: Crowd, model: StoredModel, images: Images, labels: Labels
) -> Iterator[ReportRecord]:
    """Give corrections of the first mistakes, each from two of 40 tokens, and the false ones."""
    scaled = (images / 255).astype(np.float32)
    probabilities = model.predict(scaled.reshape(len(scaled), -1))
    answers, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)

    def said(row: int, truth: str, source: str, **more: Any) -> ReportRecord:
        answer = {"label": int(answers[row]), "confidence": float(sure[row])}
        return correction(scaled[row], truth, source, **answer | more)

    wrong = np.flatnonzero(answers != labels)
    for row in wrong[: HONEST // 2]:
        for i in range(2):
            yield said(row, str(labels[row]), f"{(row * 7 + i * 13) % HONEST_TOKENS + 1:02x}")
    if not crowd.false_tokens:
        return
    if crowd.sleepers:
        for i in range(LOOKED_AT * crowd.false_tokens):
            row = wrong[HONEST // 2 - 1 - i]
            yield said(row, str(labels[row]), _liar(i, crowd), reported_at=time.time() - 3600)
    victims = np.flatnonzero((answers == VICTIM) & (labels == VICTIM))
    if crowd.careful:
        victims = victims[np.argsort(sure[victims])]
    for i in range(FALSE):
        # Of ten tokens two say the same of a row.
        row = victims[(i // 2 if crowd.false_tokens > 1 else i) % len(victims)]
        yield said(row, CLAIM, _liar(i, crowd), note=FALSE_NOTE)


def _liar(number: int, crowd: Crowd) -> str:
    return f"ff{number % crowd.false_tokens:02x}"


def _record(place: FeedbackPlace, reports: Sequence[ReportRecord], crowd: Crowd) -> None:
    reviews, looked_at = Reviews(place, "mnist"), dict[str, int]()
    for report in sorted(reports, key=lambda report: report.reported_at):
        place.record(report)
        number = looked_at[report.source] = looked_at.get(report.source, 0) + 1
        if crowd.accepted == "all":
            reviews.add(report.tag, ACCEPTED)
        elif crowd.accepted == "five" and number <= LOOKED_AT:
            reviews.add(report.tag, REJECTED if report.note == FALSE_NOTE else ACCEPTED)
    if crowd.revoked:
        for source in {r.source for r in reports if r.source.startswith("ff")}:
            reviews.revoke(source, "false")


def _decision(settings: TrainSettings, crowd: Crowd, unseen: tuple[Images, Labels]) -> str | None:
    """Return what the judge decides about the challenger; None where there is none to decide."""
    assert settings.corrections is not None
    place, store = FeedbackPlace(settings.corrections.place), Store(settings.store, "mnist")
    images, labels = unseen[0][:AUDITED], unseen[1][:AUDITED]
    later = int(time.time()) + 2
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        is_false = bool(crowd.false_tokens) and row % 5 == 0
        truth = CLAIM if is_false and label == VICTIM else str(label)
        source = _liar(row, crowd) if is_false else f"{row % HONEST_TOKENS + 1:02x}"
        scaled = (image / 255).astype(np.float32)
        place.record(correction(scaled, truth, source, audit=True, answered_at=later))
    decisions = Judge(store, place, JudgeSettings()).evaluate()
    return decisions[-1].in_words if decisions else None


def _figures(
    settings: TrainSettings, outcome: Outcome, unseen: tuple[Images, Labels]
) -> dict[str, Any]:
    store = Store(settings.store, "mnist")
    model, manifest = store.load(outcome.version), store.manifest(outcome.version)
    images, labels = unseen
    answers = model.predict((images / 255).astype(np.float32).reshape(len(images), -1))
    right = answers.argmax(axis=1) == labels
    facts = manifest.extra.get("corrections", {})
    return {
        "holdout": outcome.metrics["accuracy"],
        "turned": float(right.mean()),
        "turned_fours": float(right[labels == VICTIM].mean()),
        "rows": facts.get("rows", 0),
        "false_rows": sum(n for s, n in facts.get("sources", {}).items() if s.startswith("ff")),
        "left_out": {why: n for why, n in facts.get("left_out", {}).items() if n},
        "refused": "refused" in facts,
        "verdict": outcome.verdict,
        "digest": outcome.digest,
    }
