from math import comb

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_model import Signature
from mlpserve_trainer.release.gate import (
    Check,
    accuracy_floor,
    judge,
    no_worse,
    same_signature,
)
from mlpserve_trainer.report.analysis import Comparison

Right = npt.NDArray[np.bool_]
OLD = Signature((28, 28), 255, ("a", "b"))


def answers(rows: int, gained: int, lost: int, both: int) -> tuple[Right, Comparison]:
    """Return what the challenger and champion 3 predicted right, with these counts."""
    challenger, champion = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    challenger[: both + gained] = True
    champion[:both] = True
    champion[both + gained : both + gained + lost] = True
    return challenger, Comparison(3, champion)


@pytest.mark.parametrize(("accuracy", "passed"), [(0.95, True), (0.9, True), (0.8999, False)])
def test_the_floor_is_the_lowest_accuracy_that_passes(accuracy: float, passed: bool) -> None:
    assert accuracy_floor(accuracy, 0.9).passed is passed


def test_equal_answers_are_no_worse() -> None:
    assert no_worse(*answers(100, 0, 0, 90), margin=0).passed


def test_a_better_challenger_passes() -> None:
    assert no_worse(*answers(1000, 40, 10, 900), margin=0).passed


def test_a_clearly_worse_challenger_fails() -> None:
    check = no_worse(*answers(1000, 10, 40, 900), margin=0.002)
    assert not check.passed
    assert "worse than champion 3 (0.9400): 10 rows gained, 40 lost" in check.reason


def test_a_loss_that_may_be_chance_passes() -> None:
    assert no_worse(*answers(1000, 12, 18, 900), margin=0.002).passed


def test_a_significant_loss_within_the_margin_passes() -> None:
    right = answers(100_000, 10, 40, 90_000)
    assert no_worse(*right, margin=0.002).passed
    assert not no_worse(*right, margin=0).passed


@pytest.mark.parametrize(("gained", "lost"), [(0, 5), (3, 12), (10, 4), (7, 7)])
def test_the_p_value_is_the_tail_of_the_binomial_distribution(gained: int, lost: int) -> None:
    n = gained + lost
    tail = sum(comb(n, k) for k in range(lost, n + 1)) / 2**n
    reason = no_worse(*answers(100, gained, lost, 50), margin=0).reason
    assert f"exact McNemar p {tail:.2g}" in reason


@pytest.mark.parametrize(("lost", "passed"), [(4, True), (5, False)])
def test_five_rows_lost_and_none_gained_are_no_chance(lost: int, passed: bool) -> None:
    # 1/2**4 = 0.0625 is above the significance of 0.05, 1/2**5 = 0.03125 below it.
    assert no_worse(*answers(100, 0, lost, 80), margin=0).passed is passed


def test_the_same_signature_passes() -> None:
    assert same_signature(3, OLD, Signature((28, 28), 255, ("a", "b")), False).passed


@pytest.mark.parametrize(
    "new",
    [
        Signature((8, 8), 255, ("a", "b")),
        Signature((28, 28), 16, ("a", "b")),
        Signature((28, 28), 255, ("b", "a")),
        Signature((28, 28), 255, ("a", "b", "c")),
    ],
)
def test_another_signature_passes_only_when_allowed(new: Signature) -> None:
    refused = same_signature(3, OLD, new, allow_change=False)
    assert not refused.passed
    assert "--allow-signature-change" in refused.reason
    assert same_signature(3, OLD, new, allow_change=True).passed


GOOD, BAD = Check(True, "good"), Check(False, "bad")


def test_what_passes_everything_is_promoted() -> None:
    gate = judge([GOOD, GOOD], None)
    assert (gate.verdict, gate.reasons) == ("PROMOTED", ("good", "good"))


def test_one_failure_rejects_and_comes_first() -> None:
    gate = judge([GOOD, BAD], None)
    assert (gate.verdict, gate.reasons) == ("REJECTED", ("failed: bad", "passed: good"))


def test_force_promotes_a_failure_and_says_why() -> None:
    gate = judge([GOOD, BAD], "the demo is now")
    assert (gate.verdict, gate.reasons[0]) == ("FORCED", "forced: the demo is now")
    assert gate.reasons[1:] == ("failed: bad", "passed: good")


def test_force_changes_nothing_for_what_passes() -> None:
    assert judge([GOOD], "the demo is now").verdict == "PROMOTED"


def test_what_differs_is_named() -> None:
    new = Signature((8, 8), 16, ("a", "c", "d"))
    reason = same_signature(3, OLD, new, False).reason
    assert (
        "shape 28×28 became 8×8; maximum 255 became 16; 2 classes became 3; class 1 'b' became 'c'"
    ) in reason


def test_of_many_names_that_changed_a_few_are_named() -> None:
    old = Signature((2,), 1, tuple(f"old {i}" for i in range(50)))
    new = Signature((2,), 1, tuple(f"new {i}" for i in range(50)))
    reason = same_signature(3, old, new, False).reason
    assert "class 2 'old 2' became 'new 2'; 47 other classes changed their names;" in reason
