"""What false corrections do to the next version: from one token and from ten, and after `revoke`.

A network is trained on the first 20,000 images of MNIST. Callers send test images that are turned
by 20 degrees, and correct its mistakes; one report in five is false: a 4 is said to be a 9. The
accuracy that counts is that on turned images that nobody has sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mlpserve_model import Store, StoredModel
from mlpserve_model.store.evidence.records import FeedbackPlace, ReportRecord
from mlpserve_trainer import Outcome, Rules, TrainSettings, load_recipe, train
from mlpserve_trainer.corrections.collect import CorrectionSettings
from mlpserve_trainer.corrections.reviews import ACCEPTED, Reviews
from tests.support.corrections import correction

__all__ = ["attack"]

TRAINED, SENT = 20_000, 5000
HONEST = 1000
FALSE = HONEST // 4  # one report in five
VICTIM, CLAIM = 4, "9"

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Crowd:
    """Who reports: the false reports' tokens, and how corrections are accepted."""

    false_tokens: int
    auto_accept: int | None = None
    revoked: bool = False


CROWDS: Mapping[str, Crowd] = {
    "honest, all accepted": Crowd(0),
    "false from one token, all accepted": Crowd(1),
    "false from ten tokens, all accepted": Crowd(10),
    "false from one token, accepted when two agree": Crowd(1, auto_accept=2),
    "false from ten tokens, accepted when two agree": Crowd(10, auto_accept=2),
    "false from ten tokens, all accepted, then revoked": Crowd(10, revoked=True),
}


def attack(images: Images, labels: Labels, test: Images, test_labels: Labels, folder: Path) -> Any:
    """Return the accuracies of the version after each crowd, beside that before."""
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
    for name, crowd in CROWDS.items():
        place = folder / name.replace(" ", "-").replace(",", "")
        reports = _reports(crowd, model, turned[:SENT], test_labels[:SENT])
        _record(FeedbackPlace(place), reports, crowd)
        trained = replace(
            settings,
            store=folder / f"store-{place.name}",
            corrections=CorrectionSettings(
                place=place, auto_accept=crowd.auto_accept, quota=10_000
            ),
        )
        rows[name] = _figures(trained, train(trained), unseen)
    return rows


def _turned(images: Images) -> Images:
    turned = ndimage.rotate(images.astype(np.float32), 20, axes=(1, 2), reshape=False, order=1)
    pixels: Images = np.clip(np.rint(turned), 0, 255).astype(np.uint8)
    return pixels


def _reports(
    crowd: Crowd, model: StoredModel, images: Images, labels: Labels
) -> list[ReportRecord]:
    """Return corrections of the first mistakes, each from two of 40 tokens, and the false ones."""
    scaled = (images / 255).astype(np.float32)
    answers = model.predict(scaled.reshape(len(scaled), -1)).argmax(axis=1)
    wrong = np.flatnonzero(answers != labels)[: HONEST // 2]
    found = [
        correction(scaled[row], str(labels[row]), f"{(row * 7 + i * 13) % 40 + 1:02x}")
        for row in wrong
        for i in range(2)
    ]
    if crowd.false_tokens:
        victims = np.flatnonzero((answers == VICTIM) & (labels == VICTIM))
        for i in range(FALSE):
            # Of ten tokens two say the same of a row.
            row = victims[(i // 2 if crowd.false_tokens > 1 else i) % len(victims)]
            found.append(correction(scaled[row], CLAIM, f"ff{i % crowd.false_tokens:02x}"))
    return found


def _record(place: FeedbackPlace, reports: Sequence[ReportRecord], crowd: Crowd) -> None:
    reviews = Reviews(place, "mnist")
    for report in reports:
        place.record(report)
        if crowd.auto_accept is None:
            reviews.add(report.tag, ACCEPTED)
    if crowd.revoked:
        for source in {r.source for r in reports if r.source.startswith("ff")}:
            reviews.revoke(source, "false")


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
        "refused": "refused" in facts,
        "verdict": outcome.verdict,
        "digest": outcome.digest,
    }
