"""The formulas beside SciPy's, their properties, and the promises that they make."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from mlpserve_model.store.evidence.drift_tests import (
    chi_squared_quantile,
    chi_squared_tail,
    class_shares,
    g_test,
    psi,
    psi_threshold,
)
from mlpserve_model.store.evidence.statistics import (
    binomial_tail,
    confidence_sequence,
    e_value,
    hypergeometric_tail,
    log_e_value,
    wilson_interval,
)

ALPHA = 0.05
counts = st.integers(0, 5000)


@given(counts, counts)
def test_wilsons_interval_is_scipys(right: int, wrong: int) -> None:
    n = right + wrong
    if n == 0:
        assert wilson_interval(0, 0) == (0.0, 1.0)
        return
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts, counts, st.sampled_from((0.2, 0.05, 0.001)))
@example(4999, 1, 0.001)
def test_a_confidence_sequence_ends_where_the_mixture_reaches_1_over_alpha(
    right: int, wrong: int, alpha: float
) -> None:
    low, high = confidence_sequence(right, right + wrong, alpha)
    assert 0 <= low <= (right / (right + wrong) if right + wrong else 0.5) <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        log_likelihood = special.xlogy(right, end) + special.xlog1py(wrong, -end)
        log_ratio = special.betaln(right + 1, wrong + 1) - log_likelihood
        # Close to 1 the next float is far away.
        step = (right / end + wrong / (1 - end)) * math.ulp(end)
        assert log_ratio == pytest.approx(-math.log(alpha), abs=1e-6 + step)


@given(counts, st.integers(1, 5000))
def test_a_sequence_is_wider_than_the_interval_for_a_fixed_number(right: int, wrong: int) -> None:
    n = right + wrong
    (low, high), (wilson_low, wilson_high) = (
        confidence_sequence(right, n),
        wilson_interval(right, n),
    )
    assert high - low >= wilson_high - wilson_low


def test_the_evidence_is_the_formula_in_exact_arithmetic() -> None:
    for wins in range(12):
        for losses in range(12):
            n = wins + losses
            below = sum(math.comb(n + 1, j) for j in range(wins + 1))
            exact = below / ((n + 1) * math.comb(n, wins))
            assert e_value(wins, losses) == pytest.approx(exact, rel=1e-12)


@given(counts, counts)
def test_the_evidence_is_scipys_incomplete_beta(wins: int, losses: int) -> None:
    n = wins + losses
    log_tail = stats.binom.logcdf(wins, n + 1, 0.5)
    expected = (n + 1) * math.log(2) + special.betaln(wins + 1, losses + 1) + log_tail
    if log_tail > -700:  # beyond, its tail is a denormal number: few digits are left
        assert log_e_value(wins, losses) == pytest.approx(expected, abs=1e-6)


@given(counts, counts)
def test_a_win_adds_evidence_and_a_loss_takes_some(wins: int, losses: int) -> None:
    now = log_e_value(wins, losses)
    assert log_e_value(wins + 1, losses) >= now - 1e-9
    assert log_e_value(wins, losses + 1) <= now + 1e-9


@pytest.mark.parametrize(("wins", "losses"), [(516, 2559), (3, 4999), (4999, 3)])
def test_the_evidence_is_exact_where_its_tail_underflows(wins: int, losses: int) -> None:
    n = wins + losses
    ways, below = 1, 0
    for j in range(wins + 1):  # C(n + 1, j), each from the one before
        below += ways
        ways = ways * (n + 1 - j) // (j + 1)
    # math.log takes integers of any size.
    exact = math.log(below) - math.log(n + 1) - math.log(math.comb(n, wins))
    assert log_e_value(wins, losses) == pytest.approx(exact, abs=1e-9)


def test_no_rows_say_nothing_and_a_hundred_thousand_do_not_overflow() -> None:
    assert e_value(0, 0) == pytest.approx(1)
    assert confidence_sequence(0, 0) == (0.0, 1.0)
    assert e_value(100_000, 0) == math.inf
    assert math.isfinite(log_e_value(100_000, 99_000))
    assert log_e_value(0, 100_000) == pytest.approx(-math.log(100_001))


@given(st.floats(0, 3000), st.integers(1, 2000))
def test_the_tail_of_chi_squared_is_scipys(statistic: float, degrees: int) -> None:
    expected = stats.chi2.sf(statistic, degrees)
    assert chi_squared_tail(statistic, degrees) == pytest.approx(expected, rel=1e-8, abs=1e-300)


@given(st.floats(1e-9, 0.999), st.integers(1, 300))
def test_the_quantile_of_chi_squared_is_scipys(alpha: float, degrees: int) -> None:
    expected = stats.chi2.isf(alpha, degrees)
    assert chi_squared_quantile(alpha, degrees) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(st.integers(60, 999), st.integers(60, 999)), min_size=2, max_size=12))
def test_g_is_scipys(columns: list[tuple[int, int]]) -> None:
    a, b = zip(*columns, strict=True)
    expected = stats.chi2_contingency([a, b], correction=False, lambda_="log-likelihood")
    statistic, degrees, p = g_test(a, b)
    assert degrees == expected.dof
    assert statistic == pytest.approx(max(expected.statistic, 0), rel=1e-7, abs=1e-7)
    assert p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([0, 0], [5, 6]), ([9, 0], [8, 0]), ([1, 2], [2, 1])]
)
def test_g_says_nothing_where_there_is_nothing_to_compare(a: list[int], b: list[int]) -> None:
    assert g_test(a, b) == (0.0, 0, 1.0)


def test_small_bins_are_merged_into_one() -> None:
    merged = g_test([500, 400, 6], [480, 410, 12])
    assert g_test([500, 400, 1, 2, 3], [480, 410, 3, 4, 5]) == pytest.approx(merged)
    assert merged[1] == 2


def test_the_index_without_drift_exceeds_its_threshold_as_often_as_it_says() -> None:
    rng, shares = np.random.default_rng(2), np.full(10, 0.1)
    a, b = (rng.multinomial(n, shares, 2000) for n in (1000, 5000))
    threshold = psi_threshold(1000, 5000, 10, ALPHA)
    exceeded = np.mean([psi(x, y) > threshold for x, y in zip(a, b, strict=True)])
    assert exceeded == pytest.approx(ALPHA, abs=0.02)


def test_the_index_is_finite_and_is_0_for_equal_samples() -> None:
    assert psi([5, 0, 7], [5, 0, 7]) == 0
    assert math.isfinite(psi([5, 0], [0, 5]))
    assert psi([0, 0], [1, 2]) == 0
    assert psi_threshold(0, 5, 10) == math.inf


def test_the_shares_of_classes_are_found_from_predictions() -> None:
    given_true = np.array([[90, 5, 5], [2, 96, 2], [10, 0, 90]])
    shares = np.array([0.1, 0.6, 0.3])
    predicted = (shares @ (given_true / 100) * 100_000).round().astype(int)
    assert class_shares(given_true, predicted.tolist()) == pytest.approx(shares, abs=1e-4)


def test_shares_stay_shares_whatever_the_matrix() -> None:
    for confusion in (np.zeros((3, 3), int), np.ones((3, 3), int), np.diag([5, 5, 0])):
        found = class_shares(confusion, [1, 2, 3])
        assert np.isnan(found).all() or (found.min() >= 0 and found.sum() == pytest.approx(1))
    assert np.isnan(class_shares(np.eye(3, dtype=int), [0, 0, 0])).all()


def test_impossible_counts_are_refused() -> None:
    for function in (wilson_interval, confidence_sequence):
        with pytest.raises(ValueError, match="expected from 0 to 3"):
            function(4, 3)
    with pytest.raises(ValueError, match="at least 0"):
        log_e_value(-1, 2)
    with pytest.raises(ValueError, match="at least 0"):
        chi_squared_tail(1.0, -1)


# The promises, kept by the functions themselves: boundaries are found by calling them, and the
# paths of many lives are then compared with the boundaries.


@pytest.mark.parametrize("true", [0.5, 0.9, 0.98])
def test_a_sequence_watched_after_every_row_misses_in_at_most_alpha_of_all_lives(
    true: float,
) -> None:
    assert _missed(confidence_sequence, true, lives=2000) <= ALPHA


def test_an_interval_for_a_fixed_number_misses_far_more_often_when_it_is_watched() -> None:
    assert _missed(wilson_interval, 0.9, lives=500) > 0.2


def _missed(
    interval: Callable[[int, int], tuple[float, float]], true: float, lives: int, rows: int = 800
) -> float:
    """Return the share of lives in which the interval misses the true proportion after any row."""
    right = (np.random.default_rng(5).random((lives, rows)) < true).cumsum(axis=1)
    bounds, low, high = [], 0, 0  # of the counts after n rows whose interval covers it
    for n in range(1, rows + 1):
        while low < n and interval(low, n)[1] < true:
            low += 1
        high = max(high, low)
        while high < n and interval(high + 1, n)[0] <= true:
            high += 1
        bounds.append((low, high))
    lows, highs = np.array(bounds).T
    return float(((right < lows) | (right > highs)).any(axis=1).mean())


@pytest.mark.parametrize("chance", [0.5, 0.45])
def test_a_version_that_is_not_better_is_promoted_in_at_most_alpha_of_all_lives(
    chance: float,
) -> None:
    pairs, lives, rng = 1000, 2000, np.random.default_rng(7)
    wins = (rng.random((lives, pairs)) < chance).cumsum(axis=1)
    promoted = (wins >= _promotion_boundary(pairs)).any(axis=1).mean()
    assert promoted <= ALPHA


def test_a_better_version_is_promoted_soon() -> None:
    pairs, rng = 1000, np.random.default_rng(7)
    reached = (rng.random((500, pairs)) < 0.7).cumsum(axis=1) >= _promotion_boundary(pairs)
    assert reached.any(axis=1).all()
    assert np.median(reached.argmax(axis=1)) < 100


def _promotion_boundary(pairs: int) -> NDArray[np.int64]:
    """Return the number of wins after each pair that is enough; n + 1 where none is."""
    bounds, wins = [], 0
    for n in range(1, pairs + 1):
        while wins <= n and log_e_value(wins, n - wins) < -math.log(ALPHA):
            wins += 1
        bounds.append(wins)
    return np.array(bounds)


@given(st.integers(-2, 400), st.integers(0, 400), st.floats(0, 1))
def test_a_binomial_tail_is_scipys(k: int, n: int, p: float) -> None:
    if k > n:
        with pytest.raises(ValueError, match="expected from 0"):
            binomial_tail(k, n, p)
        return
    expected = float(stats.binom.sf(k - 1, n, p))
    assert binomial_tail(k, n, p) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(st.data())
def test_a_hypergeometric_tail_is_scipys_and_so_fishers_exact_test(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 400))
    n, marked = data.draw(st.integers(0, total)), data.draw(st.integers(0, total))
    k = data.draw(st.integers(0, min(n, marked)))
    found = hypergeometric_tail(k, n, marked, total)
    expected = float(stats.hypergeom.sf(k - 1, total, marked, n))
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-300)
    table = [[k, n - k], [marked - k, total - n - marked + k]]
    if min(map(min, table)) >= 0:
        fisher = stats.fisher_exact(table, alternative="greater").pvalue
        assert found == pytest.approx(fisher, rel=1e-6, abs=1e-300)
