"""How a version's holdout differs from its predecessor's, for the report."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mlpserve_model.store.evidence.reference import Drift

__all__ = ["Predecessor", "drift_rows"]

NAMES = {
    "predicted": "predicted class",
    "confidence": "confidence",
    "energy": "energy",
    "mean_input": "mean input",
}


@dataclass(frozen=True)
class Predecessor:
    """The champion that a version is compared with.

    Attributes:
        champion: The champion's version.
        rows: Rows of the champion's holdout.
        drift: How the version's holdout differs from it, by signal.
    """

    champion: int
    rows: int
    drift: Mapping[str, Drift]

    @property
    def rows_now(self) -> int:
        """Rows of the version's own holdout."""
        return max(signal.rows for signal in self.drift.values())


def drift_rows(predecessor: Predecessor) -> Iterator[tuple[object, ...]]:
    """Yield a row of text for each signal: its name, G, degrees, p, PSI and its threshold."""
    for name, found in predecessor.drift.items():
        figures = (found.statistic, found.p, found.psi, found.psi_threshold)
        g, p, psi, threshold = (f"{figure:.3g}" for figure in figures)
        yield NAMES[name], g, found.degrees, p, psi, threshold
