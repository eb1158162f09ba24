"""What the evidence about a pair of versions allows to decide. Pure functions of counts."""

import math
from dataclasses import dataclass, field
from typing import Any

from mlpserve_model.store.evidence.statistics import log_e_value
from mlpserve_trainer.judge.evidence import Evidence
from mlpserve_trainer.judge.pairs import Pair

__all__ = ["ACTIONS", "MAX_E_VALUE", "Decision", "decide"]

ACTIONS = ("promote", "retire", "rollback")

MAX_E_VALUE = 1e300  # what JSON can hold everywhere
# More labels than this many times those there are is no useful forecast.
MAX_FACTOR = 1000


@dataclass(frozen=True)
class Decision:
    """A pair, the evidence about it, and what it allows.

    Attributes:
        pair: The versions.
        evidence: The labels that both answered.
        alpha: The probability of acting on a pair although nothing is to be gained by it.
        action: "promote" or "retire" a challenger, "rollback" a new champion; None: not decided.
        more_labels: About how many more labels decide it if they are like those there are; None if
            it is decided, or they say nothing about it.
        is_done: Whether the action was carried out.
    """

    pair: Pair
    evidence: Evidence
    alpha: float
    action: str | None
    more_labels: int | None = None
    is_done: bool = field(default=False, compare=False)

    @property
    def reason(self) -> str:
        """The decision in words, with its figures."""
        found, pair = self.evidence, self.pair
        e, than = _shown(found.log_better), f"{pair.rival} is better than {pair.champion}"
        if self.action == "retire":
            e, than = _shown(found.log_worse), f"{pair.champion} is better than {pair.rival}"
        of = f"of {found.labels} audited labels, {found.wins} won by {pair.rival}"
        return f"{than}: E {e} at alpha {self.alpha:g}, {of}, {found.losses} by {pair.champion}"

    @property
    def in_words(self) -> str:
        """The decision as the last column of a table."""
        if self.action is not None:
            return {"rollback": "roll back"}.get(self.action, self.action)
        if self.more_labels is None:
            return "not decided yet"
        return f"not decided yet, about {self.more_labels} more labels are needed"

    def facts(self) -> dict[str, Any]:
        """Return the figures for the history, so that anyone can compute them again."""
        found = self.evidence
        return {
            "champion": self.pair.champion,
            "rival": self.pair.rival,
            "since": self.pair.since,
            "is_probation": self.pair.is_probation,
            "labels": found.labels,
            "wins": found.wins,
            "losses": found.losses,
            "perhaps_wins": found.perhaps_wins,
            "perhaps_losses": found.perhaps_losses,
            "e_value_better": _finite(found.log_better),
            "e_value_worse": _finite(found.log_worse),
            "alpha": self.alpha,
            "digest": found.digest,
        }


def decide(pair: Pair, evidence: Evidence, alpha: float) -> Decision:
    """Return what the evidence allows.

    Both e-values are test supermartingales, so each reaches 1 / alpha with probability at most
    alpha if there is nothing to be gained, however often it is computed (see `log_e_value`). A
    challenger is promoted when "it is not better" is refuted, and retired when "it is not worse"
    is; a new champion is rolled back when the one before it proves better.
    """
    bound = -math.log(alpha)
    if evidence.log_better >= bound:
        return Decision(pair, evidence, alpha, "rollback" if pair.is_probation else "promote")
    if evidence.log_worse >= bound and not pair.is_probation:
        return Decision(pair, evidence, alpha, "retire")
    return Decision(pair, evidence, alpha, None, _more_labels(evidence, bound))


def _more_labels(evidence: Evidence, bound: float) -> int | None:
    """Return the further labels after which the stronger side would have proved itself."""
    sides = [
        (evidence.wins, evidence.losses + evidence.perhaps_losses),
        (evidence.losses, evidence.wins + evidence.perhaps_wins),
    ]
    ahead, behind = max(sides, key=lambda side: log_e_value(*side))

    def proves(factor: float) -> bool:
        return log_e_value(round(ahead * factor), round(behind * factor)) >= bound

    if ahead <= behind or not proves(MAX_FACTOR):
        return None
    low, high = 1.0, float(MAX_FACTOR)
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    return max(math.ceil(evidence.labels * (high - 1)), 1)


def _finite(log: float) -> float:
    return min(math.exp(min(log, 700.0)), MAX_E_VALUE)


def _shown(log: float) -> str:
    return f"{_finite(log):.3g}"
