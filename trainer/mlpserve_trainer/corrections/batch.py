"""The corrections of one training: which of them, and as rows of its data set."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpserve_model.store.evidence.corrections import Correction
from mlpserve_model.store.evidence.reviews import ACCEPTED, NO_SOURCE
from mlpserve_trainer.datasets.dataset import Dataset, Inputs, Labels, Provenance, rows_digest
from mlpserve_trainer.datasets.split import Examples

__all__ = ["CORRECTIONS_FILE", "Batch", "choose", "live_holdout", "tags_in", "with_corrections"]

CORRECTIONS_FILE = "corrections.json"
# One row of so many is never trained on.
LIVE_HOLDOUT_OF = 5
MAX_SOURCES = 1000  # that the manifest lists, those with the most rows


@dataclass(frozen=True, eq=False)
class Batch:
    """The corrections of one training.

    Attributes:
        training: Those that are trained on, in the order of their rows' hashes.
        live: Those of the live holdout, which is never trained on.
        left_out: How many accepted ones are not used, by reason.
    """

    training: tuple[Correction, ...] = ()
    live: tuple[Correction, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of the batch."""
        by_source = Counter(c.report.source for c in self.training)
        return {
            "rows": len(self.training),
            "live_holdout": len(self.live),
            "sources": {source or NO_SOURCE: n for source, n in by_source.most_common(MAX_SOURCES)},
            "left_out": self.left_out,
        }

    def document(self) -> bytes:
        """Return corrections.json: the reports' tags, by which the training can be repeated."""
        tags = {
            "training": [c.report.tag for c in self.training],
            "live_holdout": [c.report.tag for c in self.live],
        }
        return json.dumps(tags).encode() + b"\n"


def choose(found: Sequence[Correction], data: Dataset, share: float, source_share: float) -> Batch:
    """Return the accepted corrections that a data set takes.

    Of each row one counts; a row about which accepted corrections disagree is left out. By the hash
    of its instance it goes into training, or one of five into the live holdout, so that it is
    always in the same. The live holdout decides about versions, so only what a person accepted is
    in it. Of each class, and in all, at most a share of the rows that the data set has are taken,
    and of each source at most a share of these, the newest first.

    Args:
        found: Corrections with their instances, oldest first.
        data: The data set, without corrections.
        share: The share of the rows, from 0 to 1.
        source_share: The share of these that one source gives, from 0 to 1.

    """
    left_out: Counter[str] = Counter()
    rows = _one_of_each_row([c for c in found if c.is_accepted], data, left_out)
    held_out = [c for c in rows if _is_live(c)]
    live = [c for c in held_out if c.state == ACCEPTED]
    left_out["of the live holdout, reviewed by nobody"] += len(held_out) - len(live)
    of_training = [c for c in rows if not _is_live(c)]
    training = _capped(of_training, data, share, source_share, left_out)
    return Batch(tuple(training), tuple(live), dict(left_out))


def with_corrections(data: Dataset, batch: Batch) -> Dataset:
    """Return the data set with the batch's training rows added, for training alone."""
    if not batch.training:
        return data
    inputs, labels = _as_rows(batch.training, data)
    origins = data.origins or (Provenance(data.name, data.digest(), len(data.labels)),)
    digest, count = rows_digest(inputs, labels, data.class_names), len(labels)
    joined: Any = np.concatenate([data.inputs, inputs])
    return replace(
        data,
        inputs=joined,
        labels=np.concatenate([data.labels, labels]),
        added=data.added + count,
        source=f"{data.source}, with {count} corrections",
        origins=(*origins, Provenance("corrections", digest, count)),
    )


def live_holdout(data: Dataset, batch: Batch) -> Examples | None:
    """Return the rows of the live holdout; None if there are none."""
    if not batch.live:
        return None
    return Examples(*_as_rows(batch.live, data), data.input_maximum)


def tags_in(document: Any) -> tuple[list[str], list[str]]:
    """Return the tags of training and live holdout in a corrections.json.

    Raises:
        ValueError: It is not one.

    """
    try:
        parts = document["training"], document["live_holdout"]
    except (TypeError, KeyError) as error:
        raise ValueError("it has no lists of training and live_holdout") from error
    if not all(isinstance(part, list) and all(isinstance(t, str) for t in part) for part in parts):
        raise ValueError("expected lists of tags")
    return parts


def _one_of_each_row(
    accepted: Iterable[Correction], data: Dataset, left_out: Counter[str]
) -> list[Correction]:
    """Return a correction of each row, oldest first, reviewed ones before others."""
    by_row: defaultdict[str, list[Correction]] = defaultdict(list)
    for correction in accepted:
        if correction.instance.shape != data.input_shape:
            left_out["of another shape"] += 1
        elif correction.truth not in data.class_names:
            left_out["of an unknown class"] += 1
        else:
            by_row[correction.row].append(correction)
    rows = []
    for same in by_row.values():
        if len({correction.truth for correction in same}) > 1:
            left_out["in contradiction"] += len(same)
        else:
            left_out["of a row twice"] += len(same) - 1
            rows.append(min(same, key=lambda correction: correction.state != ACCEPTED))
    return rows


def _capped(
    rows: Sequence[Correction],
    data: Dataset,
    share: float,
    source_share: float,
    left_out: Counter[str],
) -> list[Correction]:
    """Return as many as there is room for, the newest; sorted by their tags."""
    own = Counter(data.class_names[label] for label in data.labels)
    # Room of the set, of each class, and of each source in both.
    room: dict[str | None, int] = {None: math.ceil(share * len(data.labels))}
    room |= {name: math.ceil(share * own[name]) for name in data.class_names}
    taken: list[Correction] = []
    used: Counter[object] = Counter()
    for correction in reversed(rows):
        source = correction.report.source
        places = [None, correction.truth]
        if any(used[place] >= room[place] for place in places):
            left_out["beyond the share"] += 1
        elif any(used[place, source] >= math.ceil(source_share * room[place]) for place in places):
            left_out["beyond the share of its source"] += 1
        else:
            used.update([*places, *((place, source) for place in places)])
            taken.append(correction)
    return sorted(taken, key=lambda correction: correction.report.tag)


def _is_live(correction: Correction) -> bool:
    return int(correction.row[:8], 16) % LIVE_HOLDOUT_OF == 0


def _as_rows(chosen: Sequence[Correction], data: Dataset) -> tuple[Inputs, Labels]:
    """Return inputs and labels as the data set has them."""
    indices = {name: index for index, name in enumerate(data.class_names)}
    labels = np.array([indices[c.truth] for c in chosen], dtype=np.int64)
    scaled: npt.NDArray[np.float32] = np.stack([c.instance for c in chosen])
    if data.inputs.dtype != np.uint8:
        return scaled, labels
    pixels = np.rint(np.clip(scaled, 0, 1) * np.float32(data.input_maximum))
    return pixels.astype(np.uint8), labels
