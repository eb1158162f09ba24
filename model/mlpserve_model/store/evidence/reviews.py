"""What reviewers decided about reports; kept beside them, in `MODEL/reviews` and `MODEL/revoked`.

A review is a file of its report's tag, so a second one replaces it. A revoked source is a file of
its fingerprint. Reports themselves are never changed.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from mlpserve_model.format import strict_json
from mlpserve_model.format.records import actor
from mlpserve_model.store.atomic_files import UnusableFile
from mlpserve_model.store.evidence.records import FeedbackPlace
from mlpserve_model.store.reader import translated

__all__ = ["ACCEPTED", "AGREED", "NO_SOURCE", "REJECTED", "Review", "Reviews"]

# AGREED is no person's verdict but the agreement of sources that people proved.
VERDICTS = ACCEPTED, REJECTED, AGREED = "accepted", "rejected", "agreed"
NO_SOURCE = "none"  # the file of a source without a token
MAX_BYTES = 2**16

_FILE = re.compile(r"([0-9a-f]+|none)\.json")


@dataclass(frozen=True)
class Review:
    """A decision about one report.

    Attributes:
        verdict: ACCEPTED or REJECTED by a person, or AGREED.
        by: User and host of the reviewer, or the fingerprint of a reviewer's token.
        at: When, in ISO 8601.
        reason: In words; may be empty.
        sources: Of AGREED: how many proven sources have to agree.
    """

    verdict: str
    by: str
    at: str
    reason: str = ""
    sources: int = 0


class Reviews:
    """The reviews of a model's reports, and the sources that were revoked.

    Every method raises StoreError when the place cannot be read or written.
    """

    def __init__(self, place: FeedbackPlace, model: str) -> None:
        self._files, self._model = place.files, model

    def add(self, tag: str, verdict: str, reason: str = "", by: str = "", sources: int = 0) -> None:
        """Keep a verdict on a report, durable when this returns; a later one replaces it.

        `by` is who decided; by default the user and the host of this process. `sources` is for
        AGREED, see Review.
        """
        review = Review(verdict, by or actor(), _now(), reason, sources)
        self._write(f"reviews/{tag}", asdict(review))

    def all(self) -> dict[str, Review]:
        """Return the reviews by the tags of their reports; those that are damaged are left out."""
        found = {}
        for tag, document in self._read("reviews"):
            with suppress(TypeError):
                review = Review(**document)
                if review.verdict in VERDICTS and type(review.sources) is int:
                    found[tag] = review
        return found

    def revoke(self, source: str, reason: str) -> None:
        """Take out all that a source reported, from now on; "" is callers without a token."""
        name = f"revoked/{source or NO_SOURCE}"
        self._write(name, {"by": actor(), "at": _now(), "reason": reason})

    def revoked(self) -> frozenset[str]:
        """Return the fingerprints of the sources that were revoked.

        The name of the file counts, whatever is in it: a damaged one must not let a source back.
        """
        with translated(f"cannot read {self._files}"):
            names = self._files.names(f"{self._model}/revoked")
        stems = (match[1] for name in names if (match := _FILE.fullmatch(name)))
        return frozenset("" if stem == NO_SOURCE else stem for stem in stems)

    def _write(self, name: str, document: dict[str, Any]) -> None:
        data = json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        with translated(f"cannot write to {self._files}"):
            self._files.replace(f"{self._model}/{name}.json", data)

    def _read(self, folder: str) -> Iterator[tuple[str, Any]]:
        with translated(f"cannot read {self._files}"):
            for name in self._files.names(f"{self._model}/{folder}"):
                with suppress(UnusableFile, FileNotFoundError, ValueError):
                    data = self._files.read(f"{self._model}/{folder}/{name}", MAX_BYTES)
                    if isinstance(document := strict_json.parse(data), dict):
                        yield name.removesuffix(".json"), document


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
