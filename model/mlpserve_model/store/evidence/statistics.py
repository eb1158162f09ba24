"""What a sample says and how sure it is: intervals, sequential tests, and tests for drift.

Pure functions of counts on the standard library and NumPy, so that a server needs no SciPy. What is
called anytime-valid may be computed after every new row and acted on at any of these times.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "binomial_tail",
    "chi_squared_quantile",
    "chi_squared_tail",
    "class_shares",
    "confidence_sequence",
    "e_value",
    "g_test",
    "hypergeometric_tail",
    "log_e_value",
    "psi",
    "psi_threshold",
    "wilson_interval",
]

# A cell with fewer expected rows makes the distribution of G unlike chi-squared (Cochran 1954).
MIN_EXPECTED = 5.0
_BISECTIONS = 60


def wilson_interval(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, (0, 1) without rows.

    It is valid for a number of rows that was fixed in advance (Wilson 1927); for a number that is
    watched see `confidence_sequence`.

    Args:
        right: Rows that were right, from 0 to `n`.
        n: Rows.
        level: Probability that the interval covers the true proportion, such as 0.95.

    """
    _check_counts(right, n)
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, z2 = right / n, z * z / n
    centre = (share + z2 / 2) / (1 + z2)
    half = z * math.sqrt(share * (1 - share) / n + z2 / (4 * n)) / (1 + z2)
    # At the ends the formula is exact, but not in floating point.
    low = 0.0 if right == 0 else max(centre - half, 0.0)
    return low, 1.0 if right == n else min(centre + half, 1.0)


def confidence_sequence(right: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Return an anytime-valid interval of a proportion.

    With probability 1 - alpha it covers the true proportion after every row, of however many there
    will be: all p with B(1 + k, 1 + n - k) / (p^k (1 - p)^(n - k)) < 1 / alpha, which is Ville's
    inequality on the likelihood ratio with a uniform prior (Robbins 1970; Howard et al. 2021,
    "Time-uniform, nonparametric, nonasymptotic confidence sequences").

    Args:
        right: Rows that were right, from 0 to `n`.
        n: Rows.
        alpha: Probability that the interval ever misses.

    """
    _check_counts(right, n)
    wrong = n - right
    level = _log_beta(right + 1, wrong + 1) + math.log(alpha)
    peak = right / n if n else 0.5

    def covered(p: float) -> bool:
        return _log_power(right, p) + _log_power(wrong, 1 - p) > level

    low = 0.0 if covered(0.0) else _boundary(covered, peak, 0.0)
    high = 1.0 if covered(1.0) else _boundary(covered, peak, 1.0)
    return low, high


def e_value(wins: int, losses: int) -> float:
    """Return the evidence that wins are more likely than losses; infinity beyond a float's range.

    See `log_e_value`.
    """
    log = log_e_value(wins, losses)
    return math.exp(log) if log < math.log(np.finfo(float).max) else math.inf


def log_e_value(wins: int, losses: int) -> float:
    """Return the logarithm of the e-value against "a win is at most as likely as a loss".

    With a wins and b losses, n = a + b, and a uniform prior of the probability of a win above 1/2,

        E(a, b) = 2 * 2^n * B(a + 1, b + 1) * (1 - I_half(a + 1, b + 1)),

    the one-sided mixture of the sign test (McNemar's exact test, made sequential). It is a test
    supermartingale: whatever the order of the rows and however often it is computed, it ever
    reaches 1 / alpha with probability at most alpha if the null hypothesis is true (Ville 1939;
    Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid inference"). It grows with
    each win and shrinks with each loss.

    The factor 1 - I_half is P(X <= a), X from Bin(n + 1, 1/2), so that E is a sum of binomial
    coefficients: a! b! / (n + 1)! times the sum of C(n + 1, j) over j <= a.
    """
    if min(wins, losses) < 0:
        raise ValueError(f"expected counts of at least 0, got {wins} and {losses}")
    trials = wins + losses + 1
    log_sum = _log_lower_coefficients(trials, wins)
    return math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(trials + 1) + log_sum


def binomial_tail(k: int, n: int, p: float) -> float:
    """Return P(X >= k), X from Bin(n, p): the exact one-sided binomial test."""
    _check_counts(max(k, 0), n)
    if k <= 0:
        return 1.0
    terms = (
        _log_choose(n, j) + _log_power(j, p) + _log_power(n - j, 1 - p) for j in range(k, n + 1)
    )
    return min(math.fsum(map(math.exp, terms)), 1.0)


def hypergeometric_tail(k: int, n: int, marked: int, total: int) -> float:
    """Return P(X >= k), X the marked ones among n drawn from `total`, of which so many are marked.

    Fisher's exact test, one-sided, of whether n rows have more of a mark than the rest (Fisher
    1935, "The Logic of Inductive Inference").
    """
    _check_counts(n, total)
    _check_counts(marked, total)
    fewest = max(0, n + marked - total)
    if k <= fewest:
        return 1.0
    all_ways = _log_choose(total, n)
    terms = (
        _log_choose(marked, j) + _log_choose(total - marked, n - j) - all_ways
        for j in range(k, min(n, marked) + 1)
    )
    return min(math.fsum(map(math.exp, terms)), 1.0)


def chi_squared_tail(statistic: float, degrees: int) -> float:
    """Return P(X > statistic), X from chi-squared with these degrees of freedom.

    The closed forms of Abramowitz and Stegun, 26.4.4 and 26.4.5: finite sums of positive terms.
    """
    if degrees < 0:
        raise ValueError(f"expected degrees of at least 0, got {degrees}")
    half = statistic / 2
    if half <= 0:
        return 1.0
    log_half = math.log(half)
    start = 0.5 if degrees % 2 else 0.0
    terms = (
        math.exp((start + i) * log_half - half - math.lgamma(start + i + 1))
        for i in range(degrees // 2)
    )
    tail = math.fsum(terms) + (math.erfc(math.sqrt(half)) if degrees % 2 else 0.0)
    return min(tail, 1.0)


@lru_cache(maxsize=1024)  # one of a server is computed again and again, for the same few bins
def chi_squared_quantile(alpha: float, degrees: int) -> float:
    """Return the statistic that chi-squared exceeds with probability `alpha`."""
    high = 1.0
    while chi_squared_tail(high, degrees) > alpha:
        high *= 2
    return _boundary(lambda x: chi_squared_tail(x, degrees) > alpha, 0.0, high)


def g_test(counts_a: Sequence[int], counts_b: Sequence[int]) -> tuple[float, int, float]:
    """Test whether two samples of the same bins come from one distribution.

    The log-likelihood ratio G = 2 sum O ln(O / E) of the table of two rows (Wilks 1938; Sokal and
    Rohlf, Biometry, chapter 17). Bins in which either sample would have fewer than 5 rows are
    merged into one.

    Returns:
        The statistic, its degrees of freedom, and the p-value: 0, 0 and 1 where there is nothing to
        compare.

    """
    table = _merged(np.array([counts_a, counts_b], dtype=np.float64))
    degrees = table.shape[1] - 1
    if degrees < 1:
        return 0.0, 0, 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    ratio = np.divide(table, expected, out=np.ones_like(table), where=table > 0)
    statistic = max(2 * float((table * np.log(ratio)).sum()), 0.0)
    return statistic, degrees, chi_squared_tail(statistic, degrees)


def psi(counts_a: Sequence[int], counts_b: Sequence[int]) -> float:
    """Return the population stability index, sum (q - p) ln(q / p) over the bins; 0 without rows.

    Half a row is added to each bin, so that an empty one has a finite part.
    """
    if not (sum(counts_a) and sum(counts_b)):
        return 0.0
    p, q = ((c + 0.5) / (c + 0.5).sum() for c in (np.asarray(counts_a), np.asarray(counts_b)))
    return float(((q - p) * np.log(q / p)).sum())


def psi_threshold(n: int, m: int, bins: int, alpha: float = 0.05) -> float:
    """Return what the index of two samples without drift exceeds with probability `alpha`.

    Without drift it is about (1/n + 1/m) times chi-squared with bins - 1 degrees of freedom
    (Yurdakul 2018, "Statistical Properties of Population Stability Index"), so no fixed bound such
    as 0.2 fits samples of all sizes. Infinity without rows.

    Args:
        n: Rows of the one sample.
        m: Rows of the other.
        bins: The number of bins.
        alpha: The probability.

    """
    if min(n, m) < 1:
        return math.inf
    return (1 / n + 1 / m) * chi_squared_quantile(alpha, bins - 1) if bins > 1 else 0.0


def class_shares(
    confusion: Sequence[Sequence[int]] | NDArray[np.int64], predicted_counts: Sequence[int]
) -> NDArray[np.float64]:
    """Estimate the share of each true class from the predicted ones, without labels.

    Solves C q = mu for the shares q, C being P(predicted | true) on labelled rows and mu the shares
    of the predicted classes now (Lipton et al. 2018, "Detecting and Correcting for Label Shift with
    Black Box Predictors"; theirs are q / p). It holds if the classes' shares alone have changed.

    Args:
        confusion: Rows of each true class (first index) by predicted class.
        predicted_counts: Rows by predicted class, now.

    Returns:
        (classes,), from 0 to 1, with the sum 1; all of them NaN without rows.

    """
    matrix = np.asarray(confusion, dtype=np.float64)
    counts = np.asarray(predicted_counts, dtype=np.float64)
    if counts.sum() == 0 or matrix.sum() == 0:
        return np.full(len(counts), np.nan)
    of_class = matrix.sum(axis=1, keepdims=True)
    given_true = np.divide(matrix, of_class, out=np.zeros_like(matrix), where=of_class > 0)
    shares, *_ = np.linalg.lstsq(given_true.T, counts / counts.sum(), rcond=None)
    shares = np.clip(shares, 0, None)
    return shares / total if (total := shares.sum()) > 0 else np.full(len(counts), np.nan)


def _check_counts(right: int, n: int) -> None:
    if not 0 <= right <= n:
        raise ValueError(f"expected from 0 to {n} of {n} rows, got {right}")


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_power(count: int, p: float) -> float:
    """Return log(p^count), with 0^0 = 1."""
    if count == 0:
        return 0.0
    return count * math.log(p) if p > 0 else -math.inf


def _boundary(inside: Callable[[float], bool], a: float, b: float) -> float:
    """Return the last point from `a`, which is inside, towards `b`, which is not; by bisection."""
    for _ in range(_BISECTIONS):
        middle = (a + b) / 2
        a, b = (middle, b) if inside(middle) else (a, middle)
    return b  # outside by a rounding error, so that the interval is never too short


def _log_lower_coefficients(trials: int, k: int) -> float:
    """Return log of the sum of C(trials, j) over j <= k.

    The terms fall off from the middle outwards, so the shorter tail is summed from its largest term
    on, until the terms no longer count.
    """
    if 2 * k + 1 > trials:
        total = trials * math.log(2)
        upper = _log_lower_coefficients(trials, trials - k - 1) if k < trials else -math.inf
        return total + math.log1p(-math.exp(upper - total))
    term = summed = 1.0
    for j in range(k, 0, -1):
        term *= j / (trials - j + 1)
        summed += term
        if term < summed * 1e-17:
            break
    return _log_choose(trials, k) + math.log(summed)


def _merged(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the table with its small columns, by expected rows, merged into one."""
    columns, total = table.sum(axis=0), table.sum()
    if total == 0:
        return table[:, :0]
    smaller = table.sum(axis=1).min() / total
    small = columns * smaller < MIN_EXPECTED
    rest = table[:, small].sum(axis=1, keepdims=True)
    return np.hstack([table[:, ~small], rest[:, rest.sum(axis=0) > 0]])
