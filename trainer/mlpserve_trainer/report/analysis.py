"""What a report says about a fitted network, as numbers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve_model import Network, Weights
from mlpserve_trainer.datasets.split import Examples, Split
from mlpserve_trainer.evaluation.calibration import (
    Reliability,
    expected_error,
    fit_temperature,
    reliability,
    scaled,
)
from mlpserve_trainer.evaluation.scores import ClassScores, class_scores, probabilities
from mlpserve_trainer.fitting.state import TrainingState

__all__ = ["Findings", "Mistake", "findings"]

WORST = 25


@dataclass(frozen=True)
class Mistake:
    """A row of the holdout that was predicted wrong, and how sure the network was of it."""

    row: int
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True, eq=False)
class Findings:
    """Everything measured on the holdout, with what was learnt on the way.

    * `right`: (n,) whether each row was predicted right.
    * `confusion`: (classes, classes), rows true, columns predicted.
    * `scores`: precision, recall and F1 of each class.
    * `temperature`: fitted on the validation rows.
    * `before`, `after`: the reliability as it is, and with that temperature.
    * `mistakes`: the surest first.
    """

    state: TrainingState
    weights: Weights
    holdout: Examples
    right: npt.NDArray[np.bool_]
    confusion: npt.NDArray[np.int64]
    scores: ClassScores
    temperature: float
    before: Reliability
    after: Reliability
    mistakes: tuple[Mistake, ...]

    def calibration_in_words(self) -> str:
        """Say how well calibrated the answers are, and would be."""
        return (
            f"Expected calibration error {expected_error(self.before):.4f}; "
            f"{expected_error(self.after):.4f} with a temperature of {self.temperature:.3f}, "
            "fitted on the validation data."
        )

    def beside(self, champion: int, champion_right: npt.NDArray[np.bool_]) -> dict[str, int]:
        """Count the rows by who of the two predicted them right."""
        right = self.right
        counts = {
            "both right": right & champion_right,
            "only this version right": right & ~champion_right,
            f"only champion {champion} right": ~right & champion_right,
            "both wrong": ~right & ~champion_right,
        }
        return {name: int(rows.sum()) for name, rows in counts.items()}


def findings(network: Network, weights: Weights, parts: Split, state: TrainingState) -> Findings:
    """Measure a fitted network; the holdout is only looked at."""
    answers, labels = probabilities(network, weights, parts.holdout), parts.holdout.labels
    # Sigmoid outputs need not sum to 1, and confidence is about shares.
    answers = scaled(answers, 1.0)
    watched = scaled(probabilities(network, weights, parts.validation), 1.0)
    temperature = fit_temperature(watched, parts.validation.labels)
    predicted = answers.argmax(axis=1)
    classes = network.classes
    return Findings(
        state=state,
        weights=weights,
        holdout=parts.holdout,
        right=predicted == labels,
        confusion=np.bincount(labels * classes + predicted, minlength=classes**2).reshape(
            classes, classes
        ),
        scores=class_scores(labels, predicted, classes),
        temperature=temperature,
        before=reliability(answers, labels),
        after=reliability(scaled(answers, temperature), labels),
        mistakes=_mistakes(answers, labels),
    )


def _mistakes(
    answers: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]
) -> tuple[Mistake, ...]:
    predicted, confidence = answers.argmax(axis=1), answers.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
    return tuple(
        Mistake(int(row), int(labels[row]), int(predicted[row]), float(confidence[row]))
        for row in worst
    )
