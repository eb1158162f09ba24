"""What a report says about a fitted network, as numbers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve_model import Network, Weights
from mlpserve_trainer.datasets.split import Examples, Split
from mlpserve_trainer.evaluation.calibration import (
    Reliability,
    expected_calibration_error,
    fit_temperature,
    reliability,
    with_temperature,
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
    * `is_calibrated`: whether the temperature is folded into the weights.
    * `raw`, `calibrated`: the reliability without and with the temperature.
    * `mistakes`: the surest first.
    """

    state: TrainingState
    weights: Weights
    holdout: Examples
    right: npt.NDArray[np.bool_]
    confusion: npt.NDArray[np.int64]
    scores: ClassScores
    temperature: float
    is_calibrated: bool
    raw: Reliability
    calibrated: Reliability
    mistakes: tuple[Mistake, ...]

    @property
    def served(self) -> Reliability:
        """The reliability of the answers as the version gives them."""
        return self.calibrated if self.is_calibrated else self.raw

    def calibration_in_words(self) -> str:
        """Return the calibration error with and without temperature scaling, as a sentence."""
        raw, calibrated = map(expected_calibration_error, (self.raw, self.calibrated))
        folded = "is" if self.is_calibrated else "is not"
        return (
            f"Expected calibration error {raw:.4f} without temperature scaling, {calibrated:.4f} "
            f"with a temperature of {self.temperature:.3f}. The temperature, fitted on the "
            f"validation data, {folded} folded into the weights."
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


def findings(
    network: Network,
    weights: Weights,
    parts: Split,
    state: TrainingState,
    temperature: float | None,
) -> Findings:
    """Measure a fitted network on the holdout; `temperature` is the one folded into its weights."""
    output, labels = network.output_activation, parts.holdout.labels
    answers = probabilities(network, weights, parts.holdout)
    fitted = temperature or fit_temperature(
        probabilities(network, weights, parts.validation), parts.validation.labels, output
    )
    # Dividing the logits by 1 / temperature undoes the temperature that is folded in.
    scaled = with_temperature(answers, 1 / fitted if temperature else fitted, output)
    raw, calibrated = (scaled, answers) if temperature else (answers, scaled)
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
        temperature=fitted,
        is_calibrated=temperature is not None,
        raw=reliability(raw, labels),
        calibrated=reliability(calibrated, labels),
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
