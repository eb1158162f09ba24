"""What a report says about a fitted network, as numbers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve_model import Network, Weights
from mlpserve_model.nn.activations import OUTPUT
from mlpserve_trainer.datasets.dataset import Labels
from mlpserve_trainer.datasets.split import Examples, Split
from mlpserve_trainer.evaluation.calibration import (
    Reliability,
    expected_calibration_error,
    fit_temperature,
    reliability,
)
from mlpserve_trainer.evaluation.scores import ClassScores, class_scores, logits_of
from mlpserve_trainer.fitting.state import TrainingState

__all__ = ["Analysis", "Comparison", "Confusion", "Mistake", "analyse"]

MAX_MISTAKES = 25


@dataclass(frozen=True)
class Mistake:
    """A row of the holdout that was predicted wrong, with the probability of the prediction."""

    row: int
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class Confusion:
    """How often one class was predicted for another."""

    label: int
    predicted: int
    rows: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """The champion's predictions on the same holdout.

    Attributes:
        champion: The champion's version.
        correct: (n,) whether the champion predicted each row right.
    """

    champion: int
    correct: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Analysis:
    """Measurements on the holdout, and the course of the training.

    Attributes:
        state: The training after its last epoch.
        weights: The weights of the version.
        holdout: The examples that were predicted.
        predicted: (n,) predicted class indices.
        scores: Precision, recall and F1 of each class.
        temperature: Temperature fitted on the validation rows.
        is_calibrated: Whether the temperature is folded into the weights.
        raw: Reliability of the probabilities without the temperature.
        calibrated: Reliability with the temperature.
        mistakes: Wrong predictions, the most confident first.
    """

    state: TrainingState
    weights: Weights
    holdout: Examples
    predicted: Labels
    scores: ClassScores
    temperature: float
    is_calibrated: bool
    raw: Reliability
    calibrated: Reliability
    mistakes: tuple[Mistake, ...]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each row was predicted right: (n,)."""
        return np.equal(self.predicted, self.holdout.labels)

    def confusions(self, count: int) -> list[Confusion]:
        """Return the pairs of classes that were confused most often, at most `count`."""
        labels = self.holdout.labels
        wrong = ~self.correct
        pairs = np.stack([labels[wrong], self.predicted[wrong]], axis=1)
        distinct, rows = np.unique(pairs, axis=0, return_counts=True)
        most = np.argsort(-rows, kind="stable")[:count]
        return [Confusion(*map(int, (*distinct[i], rows[i]))) for i in most]

    def confusion_matrix(self, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Count the rows whose label and prediction both are among some classes.

        Args:
            classes: (k,) class indices, sorted.

        Returns:
            (k, k) counts; rows are the labels, columns the predictions.
        """
        labels, predicted, size = self.holdout.labels, self.predicted, len(classes)
        among = np.isin(labels, classes) & np.isin(predicted, classes)
        places = [np.searchsorted(classes, values[among]) for values in (labels, predicted)]
        cells = np.bincount(places[0] * size + places[1], minlength=size**2)
        return cells.reshape(size, size)

    @property
    def served(self) -> Reliability:
        """The reliability of the answers as the version gives them."""
        return self.calibrated if self.is_calibrated else self.raw

    def calibration_in_words(self) -> str:
        """Return what calibration means, and its error with and without temperature scaling."""
        raw, calibrated = map(expected_calibration_error, (self.raw, self.calibrated))
        folded = "is" if self.is_calibrated else "is not"
        return (
            f"Expected calibration error {raw:.4f} without temperature scaling, {calibrated:.4f} "
            f"with a temperature of {self.temperature:.4f}. The temperature, fitted on the "
            f"validation data, {folded} folded into the weights. "
            "Answers are calibrated if of those with a probability near 0.9, nine in ten are "
            "right. The error is the mean difference between the two, over bins of answers with "
            "similar probabilities. A bin of few rows says little: of 10 rows, the fraction that "
            "is right varies by 0.1 with every single one, and the figure shows none with fewer. "
            "The probabilities are the softmax of "
            "the logits divided by the temperature: above 1 it makes the answers less confident, "
            "below 1 more."
        )

    def compare_with(self, comparison: Comparison) -> dict[str, int]:
        """Count the rows by which of this version and the champion predicted them right."""
        correct, theirs = self.correct, comparison.correct
        counts = {
            "both right": correct & theirs,
            "only this version right": correct & ~theirs,
            f"only champion {comparison.champion} right": ~correct & theirs,
            "both wrong": ~correct & ~theirs,
        }
        return {name: int(rows.sum()) for name, rows in counts.items()}


def analyse(
    network: Network,
    weights: Weights,
    parts: Split,
    state: TrainingState,
    temperature: float | None,
    raw_output: str,
) -> Analysis:
    """Measure a fitted network on the holdout.

    Args:
        network: The network that answers.
        weights: Its weights.
        parts: The rows.
        state: The training after its last epoch.
        temperature: The temperature that is folded into the weights, if one is.
        raw_output: The output activation without calibration.
    """
    labels, logits = parts.holdout.labels, logits_of(network, weights, parts.holdout)
    fitted = temperature or fit_temperature(
        logits_of(network, weights, parts.validation), parts.validation.labels
    )
    undone, scaled = (logits * fitted, logits) if temperature else (logits, logits / fitted)
    # In float32, as they are served.
    raw = OUTPUT[raw_output].forward(undone.astype(np.float32))
    calibrated = OUTPUT["softmax"].forward(scaled.astype(np.float32))
    answers = calibrated if temperature else raw
    predicted = answers.argmax(axis=1)
    return Analysis(
        state=state,
        weights=weights,
        holdout=parts.holdout,
        predicted=predicted,
        scores=class_scores(labels, predicted, network.classes),
        temperature=fitted,
        is_calibrated=temperature is not None,
        raw=reliability(raw, labels),
        calibrated=reliability(calibrated, labels),
        mistakes=_mistakes(answers, labels),
    )


def _mistakes(answers: npt.NDArray[np.float32], labels: Labels) -> tuple[Mistake, ...]:
    predicted, confidence = answers.argmax(axis=1), answers.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_MISTAKES]
    return tuple(
        Mistake(int(row), int(labels[row]), int(predicted[row]), float(confidence[row]))
        for row in worst
    )
