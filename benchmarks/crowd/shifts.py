"""Drift on MNIST's test images: false alarms without any, and rows until five shifts are noticed.

The test images are the population: the reference is drawn from them, and so is what callers send,
both with replacement, so that without a shift the two are exchangeable. The alarm is that of
deploy/prometheus/rules.yml: all looks of five minutes have a p-value below P. Images are classified
once, and rows drawn from their signals.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.datasets import load_digits

from mlpserve_model import StoredModel
from mlpserve_model.nn.network import logits
from mlpserve_model.store.evidence.drift_tests import chi_squared_quantile
from mlpserve_model.store.evidence.reference import (
    SIGNALS,
    Counts,
    Drift,
    Reference,
    Signals,
    drift,
    signals,
)
from mlpserve_model.store.evidence.statistics import wilson_interval

__all__ = ["SHIFTS", "false_alarms", "resent_halves", "rows_until_alarm"]

# P is the alarm's: so that a day without drift has one with a probability of at most ALPHA.
WINDOW, STEP, P, ALPHA = 3000, 100, 1e-6, 0.05
STEPS_A_DAY, LOOKS_OF_ALARM = 17_280, 60  # one in five seconds
Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Day(NamedTuple):
    """A day: the lowest p-value, and the most looks in a row with one below P."""

    lowest_p: float
    longest: int


def _noise(images: Images, _: Labels) -> Images:
    noise = np.random.default_rng(3).normal(0, 0.15, images.shape)
    return np.clip(images + noise, 0, 1).astype(np.float32)


def _blur(images: Images, _: Labels) -> Images:
    blurred: Images = ndimage.gaussian_filter(images, (0, 0.7, 0.7))
    return blurred


def _rotated(images: Images, _: Labels) -> Images:
    turned = ndimage.rotate(images, 10, axes=(1, 2), reshape=False, order=1)
    clipped: Images = np.clip(turned, 0, 1).astype(np.float32)
    return clipped


def _more_sevens(images: Images, labels: Labels) -> Images:
    """Give sevens twice the share that they have."""
    weights = np.where(labels == 7, 2.0, 1.0)
    chosen = np.random.default_rng(4).choice(len(images), len(images), p=weights / weights.sum())
    return images[chosen]


def _other_digits(images: Images, _: Labels) -> Images:
    """Give scikit-learn's digits in MNIST's frame: 20 by 20 pixels in the middle of 28 by 28."""
    pixels = load_digits().images / 16
    large = ndimage.zoom(pixels, (1, 2.5, 2.5), order=1)
    return np.pad(np.clip(large, 0, 1), ((0, 0), (4, 4), (4, 4))).astype(np.float32)


SHIFTS: Mapping[str, Callable[[Images, Labels], Images]] = {
    "noise, deviation 0.15": _noise,
    "blur, 0.7 pixels": _blur,
    "rotation by 10 degrees": _rotated,
    "twice as many sevens": _more_sevens,
    "another data set": _other_digits,
}


def false_alarms(model: StoredModel, images: Images, labels: Labels, days: int) -> dict[str, Any]:
    """Return how many days without drift had an alarm, each with a reference of its own."""
    own = _signals(model, images)

    def day(rng: np.random.Generator) -> Day:
        reference = _reference(own, labels, rng)
        return _day(reference, _sampled(_bins(reference, own), rng, STEPS_A_DAY))

    return _alarms(day, days) | {"alpha": ALPHA}


def resent_halves(model: StoredModel, images: Images, labels: Labels, days: int) -> dict[str, Any]:
    """Return how many days had an alarm on which callers sent one half of the images all day.

    The reference is that of the other half; the images are split at random each day.
    """
    own = _signals(model, images)

    def day(rng: np.random.Generator) -> Day:
        one, other = np.split(rng.permutation(len(images)), 2)
        reference = Reference.of(_rows(own, one), labels[one], 10)
        bins = _bins(reference, _rows(own, other))
        return _day(reference, _sampled(bins, rng, STEPS_A_DAY))

    return _alarms(day, days)


def _alarms(simulate: Callable[[np.random.Generator], Day], days: int) -> dict[str, Any]:
    """Return how many days had an alarm, and how many a single look that was as unlikely."""
    found = [simulate(np.random.default_rng(day)) for day in range(days)]
    alarms = sum(day.longest >= LOOKS_OF_ALARM for day in found)
    looks = sum(day.longest > 0 for day in found)
    return {
        "days": days,
        "alarms": alarms,
        "alarms_wilson_95": wilson_interval(alarms, days),
        "days_with_such_a_look": looks,
        "looks_wilson_95": wilson_interval(looks, days),
        "lowest_p": min(day.lowest_p for day in found),
    }


def rows_until_alarm(
    model: StoredModel, images: Images, labels: Labels, runs: int
) -> dict[str, dict[str, float]]:
    """Return the rows after a shift until the alarm: median and 90 % over the runs."""
    found, own = {}, _signals(model, images)
    for name, shift in SHIFTS.items():
        rows, other = [], _signals(model, shift(images, labels))
        for run in range(runs):
            rng = np.random.default_rng(run)
            reference = _reference(own, labels, rng)
            before, after = _bins(reference, own), _bins(reference, other)
            quiet, shifted = _sampled(before, rng, WINDOW // STEP), _sampled(after, rng, 200)
            p = _p_values(reference, np.concatenate([quiet, shifted]))[1:]
            rows.append(STEP * (int((p < P).argmax()) + 1) if (p < P).any() else np.inf)
        found[name] = {"median": float(np.median(rows)), "90 %": float(np.quantile(rows, 0.9))}
    return found


def _reference(own: Signals, labels: Labels, rng: np.random.Generator) -> Reference:
    """Return the reference of a holdout of as many images, drawn with replacement."""
    rows = rng.integers(0, len(labels), len(labels))
    return Reference.of(_rows(own, rows), labels[rows], 10)


def _rows(found: Signals, rows: npt.NDArray[np.int64]) -> Signals:
    return Signals._make(values[rows] for values in found)


def _signals(model: StoredModel, images: Images) -> Signals:
    x = images.reshape(len(images), -1)
    return signals(x, logits(model.manifest.network, model.weights, x), model.predict(x))


def _bins(reference: Reference, rows: Signals) -> npt.NDArray[np.int64]:
    """Return the bin of each row by each signal, counted on from one signal to the next."""
    numbers = [
        np.searchsorted(getattr(reference, name).edges, getattr(rows, name), side="right")
        for name in SIGNALS[1:]
    ]
    return np.stack([rows.predicted, *numbers]) + _starts(reference)[:-1, None]


def _starts(reference: Reference) -> npt.NDArray[np.int64]:
    sizes = [len(getattr(reference.counts, name)) for name in SIGNALS]
    return np.cumsum([0, *sizes])


def _sampled(
    bins: npt.NDArray[np.int64], rng: np.random.Generator, steps: int
) -> npt.NDArray[np.int64]:
    """Return the counts of each step's rows: (steps, bins of all signals)."""
    width = int(bins.max()) + 1
    rows = bins[:, rng.integers(0, bins.shape[1], (steps, STEP))]
    flat = rows + (np.arange(steps) * width)[None, :, None]
    return np.bincount(flat.ravel(), minlength=steps * width).reshape(steps, width)


def _day(reference: Reference, steps: npt.NDArray[np.int64]) -> Day:
    """Compare every full window.

    p falls as G grows, so the product's own test is needed only where a signal's G is largest.
    """
    starts, windows = _starts(reference), _windows(reference, steps)
    below, lowest_p = np.zeros(len(windows), bool), 1.0
    for name, (first, end) in zip(SIGNALS, pairwise(starts), strict=True):
        expected = np.asarray(getattr(reference.counts, name))
        statistics = _g(expected, windows[:, first:end])
        place = int(statistics.argmax())
        test = _compared(reference, windows[place])[name]
        assert np.isclose(test.statistic, statistics[place]), "bins were merged: test every window"
        lowest_p = min(lowest_p, test.p)
        below |= statistics > chi_squared_quantile(P, test.degrees)
    changes = np.flatnonzero(np.diff(np.concatenate([[False], below, [False]])))
    return Day(lowest_p, int((changes[1::2] - changes[::2]).max(initial=0)))


def _g(expected: npt.NDArray[np.int64], windows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the statistic of the G-test of each window: G = 2 sum O ln(O / E), multiplied out."""
    rows = int(expected.sum()) + WINDOW
    x_log_x = np.arange(rows + 1) * np.log(np.maximum(np.arange(rows + 1), 1))
    inside = x_log_x[expected] + x_log_x[windows] - x_log_x[expected + windows]
    edges = x_log_x[rows - WINDOW] + x_log_x[WINDOW] - x_log_x[rows]
    statistics: npt.NDArray[np.float64] = 2 * (inside.sum(axis=1) - edges)
    return statistics


def _p_values(reference: Reference, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the smallest p-value of the signals of every full window."""
    windows = _windows(reference, steps)
    found = (_compared(reference, window).values() for window in windows)
    return np.array([min(test.p for test in tests) for tests in found])


def _windows(reference: Reference, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the counts of the rows of every full window: (windows, bins of all signals)."""
    steps = np.pad(steps, ((0, 0), (0, _starts(reference)[-1] - steps.shape[1])))
    sums = np.cumsum(np.pad(steps, ((1, 0), (0, 0))), axis=0)
    windows: npt.NDArray[np.int64] = sums[WINDOW // STEP :] - sums[: -(WINDOW // STEP)]
    return windows


def _compared(reference: Reference, window: npt.NDArray[np.int64]) -> dict[str, Drift]:
    parts = [window[a:b] for a, b in pairwise(_starts(reference))]
    return drift(reference, Counts(*parts))
