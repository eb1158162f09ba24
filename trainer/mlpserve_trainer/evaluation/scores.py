"""Metrics of a network on labelled examples."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpserve_model.nn.activations import OUTPUT
from mlpserve_model.nn.network import Network, Weights, forward, logits
from mlpserve_model.process.tables import plain
from mlpserve_model.store.evidence.reference import Signals, signals
from mlpserve_trainer.datasets.dataset import Labels
from mlpserve_trainer.datasets.split import Examples

__all__ = [
    "ClassScores",
    "Evaluation",
    "accuracy",
    "class_scores",
    "evaluate",
    "logits_of",
    "probabilities",
    "report",
    "signals_of",
]

# Large enough for efficient matrix products, small enough to stay in the cache.
CHUNK_ROWS = 1024
MAX_CLASSES = 60  # in a table
MAX_NAME = 40  # characters


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions beside the truth.

    * `labels`: (n,) true class indices.
    * `predicted`: (n,) predicted class indices.
    * `log_loss`: mean negative logarithm of the normalised probability of the true class.
    """

    labels: Labels
    predicted: Labels
    log_loss: float

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each row was predicted right: (n,)."""
        return np.equal(self.labels, self.predicted)

    @property
    def accuracy(self) -> float:
        """The fraction of rows predicted correctly."""
        return float(self.correct.mean())


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Precision, recall, F1 and the number of rows of each class: (classes,) each."""

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]


def probabilities(
    network: Network, weights: Weights, examples: Examples
) -> npt.NDArray[np.float32]:
    """Return the network's answer for every example: (n, classes)."""
    starts = range(0, len(examples), CHUNK_ROWS)
    chunks = [
        forward(network, weights, examples.scaled(slice(start, start + CHUNK_ROWS)))
        for start in starts
    ]
    return np.concatenate(chunks).astype(np.float32, copy=False)


def logits_of(network: Network, weights: Weights, examples: Examples) -> npt.NDArray[np.float64]:
    """Return what the output activation is applied to, for every example: (n, classes)."""
    starts = range(0, len(examples), CHUNK_ROWS)
    chunks = [
        logits(network, weights, examples.scaled(slice(start, start + CHUNK_ROWS)))
        for start in starts
    ]
    return np.concatenate(chunks).astype(np.float64)


def signals_of(network: Network, weights: Weights, examples: Examples) -> Signals:
    """Return what drift is measured by, of every example."""
    output = OUTPUT[network.output_activation].forward
    chunks = []
    for start in range(0, len(examples), CHUNK_ROWS):
        x = examples.scaled(slice(start, start + CHUNK_ROWS))
        z = logits(network, weights, x)
        chunks.append(signals(x, z, output(z)))
    return Signals(*map(np.concatenate, zip(*chunks, strict=True)))


def evaluate(network: Network, weights: Weights, examples: Examples) -> Evaluation:
    """Predict every example."""
    answers = probabilities(network, weights, examples)
    return Evaluation(examples.labels, answers.argmax(axis=1), _log_loss(answers, examples.labels))


def accuracy(network: Network, weights: Weights, examples: Examples) -> float:
    """Return the fraction of examples predicted correctly."""
    return evaluate(network, weights, examples).accuracy


def class_scores(labels: Labels, predicted: Labels, classes: int) -> ClassScores:
    """Return precision, recall and F1 of each class.

    A score whose denominator is 0 (a class that never occurs or is never predicted) is 0.
    """
    right = np.bincount(labels[labels == predicted], minlength=classes)
    occurs = np.bincount(labels, minlength=classes)
    claimed = np.bincount(predicted, minlength=classes)
    return ClassScores(
        precision=right / np.maximum(claimed, 1),
        recall=right / np.maximum(occurs, 1),
        f1=2 * right / np.maximum(occurs + claimed, 1),
        rows=occurs,
    )


def report(evaluation: Evaluation, class_names: tuple[str, ...]) -> str:
    """Return precision, recall and F1 of each class as a table, with their means.

    Of more than MAX_CLASSES classes, those with the lowest F1 are listed. Names are escaped.
    """
    scores = class_scores(evaluation.labels, evaluation.predicted, len(class_names))
    columns = np.stack([scores.precision, scores.recall, scores.f1], axis=1)
    shown = np.sort(np.argsort(scores.f1, kind="stable")[:MAX_CLASSES])
    names = [plain(class_names[index])[:MAX_NAME] for index in shown]
    lines = [(name, columns[i], scores.rows[i]) for name, i in zip(names, shown, strict=True)]
    lines.append(("mean", columns.mean(axis=0), scores.rows.sum()))
    width = max(len("class"), *(len(name) for name, _, _ in lines))
    table = [f"{'class':>{width}}  precision  recall      F1    rows"]
    for name, (precision, recall, f1), rows in lines:
        table.append(f"{name:>{width}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}  {rows:6d}")
    if len(shown) < len(class_names):
        table.append(f"The {len(shown)} of {len(class_names):,} classes with the lowest F1.")
    return "\n".join(table)


def _log_loss(answers: npt.NDArray[np.float32], labels: Labels) -> float:
    """Return the mean log loss of rows that are normalised first, as sigmoid outputs need."""
    tiny = np.finfo(np.float32).tiny
    sums = answers.sum(axis=1, dtype=np.float64)
    of_truth = answers[np.arange(len(labels)), labels] / np.maximum(sums, tiny)
    return float(-np.log(np.maximum(of_truth, tiny)).mean())
