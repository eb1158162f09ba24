"""Tests for drift: whether two samples are from one distribution, and how far they are apart.

Pure functions of counts on the standard library and NumPy, so that a server needs no SciPy.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mlpserve_model.store.evidence.statistics import boundary

__all__ = [
    "chi_squared_quantile",
    "chi_squared_tail",
    "class_shares",
    "g_test",
    "psi",
    "psi_threshold",
]

# A cell with fewer expected rows makes the distribution of G unlike chi-squared (Cochran 1954).
MIN_EXPECTED = 5.0


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
    return boundary(lambda x: chi_squared_tail(x, degrees) > alpha, 0.0, high)


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


def _merged(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the table with its small columns, by expected rows, merged into one."""
    columns, total = table.sum(axis=0), table.sum()
    if total == 0:
        return table[:, :0]
    smaller = table.sum(axis=1).min() / total
    small = columns * smaller < MIN_EXPECTED
    rest = table[:, small].sum(axis=1, keepdims=True)
    return np.hstack([table[:, ~small], rest[:, rest.sum(axis=0) > 0]])
