"""The gate: whether a new version may become the champion. Pure functions of the facts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve_model import (
    Signature,
    Verdict,
)

__all__ = [
    "Check",
    "Rules",
    "accuracy_floor",
    "judge",
    "no_worse",
    "same_signature",
]

# How unlikely a champion's lead has to be by chance before it counts.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Rules:
    """How strict the gate is.

    * `min_accuracy`: the floor, on the holdout.
    * `margin`: the loss of accuracy against the champion that is put up with.
    * `allow_signature_change`: let inputs or classes differ from the champion's.
    * `force_reason`: promote what fails, for this reason; None does not.
    """

    min_accuracy: float = 0.9
    margin: float = 0.002
    allow_signature_change: bool = False
    force_reason: str | None = None


@dataclass(frozen=True)
class Check:
    """One question put to the challenger: the answer, and the facts behind it."""

    passed: bool
    reason: str


def accuracy_floor(accuracy: float, minimum: float) -> Check:
    """Require an accuracy of at least `minimum` on the holdout."""
    if accuracy >= minimum:
        return Check(True, f"accuracy {accuracy:.4f} reaches the floor of {minimum:.4f}")
    return Check(False, f"accuracy {accuracy:.4f} is below the floor of {minimum:.4f}")


def no_worse(
    champion: int,
    challenger_right: npt.NDArray[np.bool_],
    champion_right: npt.NDArray[np.bool_],
    margin: float,
) -> Check:
    """Refuse a challenger that is worse than the champion by more than `margin`, and not by chance.

    Both answered the same rows, so only the rows that one of them got right tell them apart:
    the exact one-sided form of McNemar, Note on the sampling error of the difference between
    correlated proportions (1947).

    * `champion`: its version, for the reason.
    * `challenger_right`: (n,) whether each row was predicted right.
    * `champion_right`: (n,) the same for the champion.
    * `margin`: the loss of accuracy that is put up with.
    """
    gained = int((challenger_right & ~champion_right).sum())
    lost = int((champion_right & ~challenger_right).sum())
    p_value = _chance_of_losing(lost, gained)
    worse = (lost - gained) / len(champion_right) > margin and p_value < SIGNIFICANCE
    return Check(
        not worse,
        f"{'worse than' if worse else 'not worse than'} champion {champion} "
        f"({champion_right.mean():.4f}): {gained} rows gained, {lost} lost, "
        f"margin {margin:g}, exact McNemar p {p_value:.2g}",
    )


def same_signature(champion: int, old: Signature, new: Signature, allow_change: bool) -> Check:
    """Refuse other inputs or classes than the champion's, which callers would stumble over."""
    if new == old:
        return Check(True, f"same inputs and classes as champion {champion}")
    change = (
        f"inputs or classes differ from champion {champion}: {_describe(old)} became "
        f"{_describe(new)}"
    )
    if allow_change:
        return Check(True, f"{change}, as allowed")
    return Check(False, f"{change}; --allow-signature-change lets it pass")


def judge(checks: Sequence[Check], force_reason: str | None) -> Verdict:
    """Promote what passed every check; promote anything else only by force, with the reason.

    Where one failed, the reasons say of each whether it did, the failures first.
    """
    reasons = tuple(check.reason for check in checks)
    if all(check.passed for check in checks):
        return Verdict("PROMOTED", reasons)
    failures_first = tuple(
        f"{'passed' if check.passed else 'failed'}: {check.reason}"
        for check in sorted(checks, key=lambda check: check.passed)
    )
    if force_reason is None:
        return Verdict("REJECTED", failures_first)
    return Verdict("FORCED", (f"forced: {force_reason}", *failures_first))


def _chance_of_losing(lost: int, gained: int) -> float:
    """P(at least `lost` of the differing rows are lost) if both were equally good."""
    if lost + gained == 0:
        return 1.0
    # Imported here: most of a second that a first version does not need.
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue)


def _describe(signature: Signature) -> str:
    shape = "×".join(map(str, signature.input_shape))
    return f"{shape} up to {signature.input_maximum:g} in {len(signature.class_names)} classes"
