"""What a sample says and how sure it is: intervals, sequential tests, and exact ones.

Pure functions of counts on the standard library and NumPy, so that a server needs no SciPy. What is
called anytime-valid may be computed after every new row and acted on at any of these times.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

__all__ = [
    "binomial_tail",
    "boundary",
    "confidence_sequence",
    "e_value",
    "hypergeometric_tail",
    "log_e_value",
    "wilson_interval",
]

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

    low = 0.0 if covered(0.0) else boundary(covered, peak, 0.0)
    high = 1.0 if covered(1.0) else boundary(covered, peak, 1.0)
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


def boundary(inside: Callable[[float], bool], a: float, b: float) -> float:
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
