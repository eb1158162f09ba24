"""The gate: whether a new version may become the champion. Pure functions of measurements."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve_model import Signature, Verdict
from mlpserve_model.store.evidence.statistics import binomial_tail
from mlpserve_trainer.report.analysis import Comparison

__all__ = [
    "Check",
    "Rules",
    "accuracy_floor",
    "harmless",
    "judge",
    "no_worse",
    "same_signature",
]

# How unlikely a champion's lead has to be by chance before it counts.
SIGNIFICANCE = 0.05
MAX_CHANGES = 3  # of class names that a reason lists


@dataclass(frozen=True)
class Rules:
    """How strict the gate is.

    Attributes:
        min_accuracy: Lowest accuracy on the holdout that passes.
        margin: Largest loss of accuracy against the champion that passes.
        allow_signature_change: Whether inputs or classes may differ from the champion's.
        force_reason: Why a version that fails is promoted all the same; None rejects it.
    """

    min_accuracy: float = 0.9
    margin: float = 0.002
    allow_signature_change: bool = False
    force_reason: str | None = None


@dataclass(frozen=True)
class Check:
    """The result of one check of the challenger, with the figures behind it."""

    passed: bool
    reason: str


def accuracy_floor(accuracy: float, minimum: float) -> Check:
    """Require an accuracy of at least `minimum` on the holdout."""
    if accuracy >= minimum:
        return Check(True, f"accuracy {accuracy:.4f} reaches the floor of {minimum:.4f}")
    return Check(False, f"accuracy {accuracy:.4f} is below the floor of {minimum:.4f}")


def no_worse(correct: npt.NDArray[np.bool_], champion: Comparison, margin: float) -> Check:
    """Refuse a challenger that is worse than the champion by more than `margin`, and not by chance.

    Both predicted the same rows, so only the rows that one of them got right matter: the exact
    one-sided form of McNemar, Note on the sampling error of the difference between correlated
    proportions (1947).

    Args:
        correct: (n,) whether the challenger predicted each row right.
        champion: The champion's predictions of the same rows.
        margin: The largest loss of accuracy that is accepted.
    """
    gained = int((correct & ~champion.correct).sum())
    lost = int((champion.correct & ~correct).sum())
    p_value = _chance_of_losing(lost, gained)
    worse = (lost - gained) / len(correct) > margin and p_value < SIGNIFICANCE
    return Check(
        not worse,
        f"{'worse than' if worse else 'not worse than'} champion {champion.champion} "
        f"({champion.correct.mean():.4f}): {gained} rows gained, {lost} lost, "
        f"margin {margin:g}, exact McNemar p {p_value:.2g}",
    )


def harmless(with_them: npt.NDArray[np.bool_], without: npt.NDArray[np.bool_]) -> Check:
    """Refuse corrections with which a training gets fewer rows of the holdout right, not by chance.

    Args:
        with_them: (n,) whether the version trained with them predicted each row right.
        without: The same of a version trained without them.
    """
    gained, lost = int((with_them & ~without).sum()), int((without & ~with_them).sum())
    p_value = _chance_of_losing(lost, gained)
    passed = p_value >= SIGNIFICANCE
    return Check(
        passed,
        f"corrections {'do no harm' if passed else 'make it worse'}: {gained} rows of the holdout "
        f"gained by them, {lost} lost, exact McNemar p {p_value:.2g}",
    )


def same_signature(champion: int, old: Signature, new: Signature, allow_change: bool) -> Check:
    """Refuse inputs or classes that differ from the champion's, and so break its callers."""
    if new == old:
        return Check(True, f"same inputs and classes as champion {champion}")
    change = f"inputs or classes differ from champion {champion}: {'; '.join(_changes(old, new))}"
    if allow_change:
        return Check(True, f"{change}, as allowed")
    return Check(False, f"{change}; --allow-signature-change lets it pass")


def judge(checks: Sequence[Check], force_reason: str | None) -> Verdict:
    """Promote a version that passed every check, another one only by force, with the reason.

    If a check failed, each reason says whether its check passed, the failures first.
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
    """Return P(at least `lost` of the differing rows are lost) if both are equally good."""
    return binomial_tail(lost, lost + gained, 0.5)


def _changes(old: Signature, new: Signature) -> Iterator[str]:
    """Yield what differs, each as a sentence of its own."""
    if old.input_shape != new.input_shape:
        shapes = ("×".join(map(str, s.input_shape)) for s in (old, new))
        yield "shape {} became {}".format(*shapes)
    if old.input_kind != new.input_kind:
        yield f"inputs of {old.input_kind} became {new.input_kind}"
    elif old.input_maximum != new.input_maximum:
        yield f"maximum {old.input_maximum:g} became {new.input_maximum:g}"
    if len(old.class_names) != len(new.class_names):
        yield f"{len(old.class_names)} classes became {len(new.class_names)}"
    pairs = zip(old.class_names, new.class_names, strict=False)
    changed = [(i, a, b) for i, (a, b) in enumerate(pairs) if a != b]
    for index, before, after in changed[:MAX_CHANGES]:
        yield f"class {index} {before!r} became {after!r}"
    if len(changed) > MAX_CHANGES:
        yield f"{len(changed) - MAX_CHANGES} other classes changed their names"
