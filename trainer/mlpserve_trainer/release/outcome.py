"""The result of a training, as its callers and its command tell it."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """The result of a training run.

    Attributes:
        version: Number of the published version; if UNCHANGED, of the earlier one.
        verdict: PROMOTED, REJECTED, FORCED or UNCHANGED.
        reasons: Why the verdict is what it is.
        metrics: Accuracy, log loss and other figures, by name.
        digest: "sha256:<hex>" of the weights.
        seconds: Duration of the whole run.
        report: Table of precision, recall and F1 of each class on the holdout.
        place: Folder or address of the version.
        trained_on: The data, in words.
        is_challenger: Whether it waits for the judge, as challenger.
    """

    version: int
    verdict: str
    reasons: tuple[str, ...]
    metrics: dict[str, float]
    digest: str
    seconds: float
    report: str
    place: str
    trained_on: str
    is_challenger: bool = False

    def facts(self) -> dict[str, Any]:
        """Return all fields but the report, as `--json` prints them."""
        return {key: value for key, value in asdict(self).items() if key != "report"}
