import numpy as np
import pytest
from sklearn.metrics import log_loss, precision_recall_fscore_support

from mlpserve_model import Network, initialise
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.evaluation.scores import (
    Evaluation,
    accuracy,
    class_scores,
    evaluate,
    probabilities,
    report,
)

RNG = np.random.default_rng(6)
LABELS = RNG.integers(0, 4, 200)
PREDICTED = np.where(RNG.random(200) < 0.7, LABELS, RNG.integers(0, 4, 200))


def test_scores_agree_with_scikit_learn() -> None:
    scores = class_scores(LABELS, PREDICTED, 4)
    expected = precision_recall_fscore_support(LABELS, PREDICTED)
    for ours, theirs in zip(
        (scores.precision, scores.recall, scores.f1, scores.rows), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs)


def test_scores_of_a_class_that_never_occurs_are_zero() -> None:
    scores = class_scores(LABELS, PREDICTED, 6)
    assert scores.f1[5] == scores.precision[5] == scores.recall[5] == 0


def test_the_report_has_a_line_for_every_class_and_one_for_the_mean() -> None:
    lines = report(Evaluation(LABELS, PREDICTED, 0.1), ("ant", "bee", "cat", "dragonfly"))
    assert [line.split()[0] for line in lines.splitlines()] == [
        *("class", "ant", "bee", "cat", "dragonfly", "mean")
    ]
    assert lines.splitlines()[-1].endswith("200")
    assert len({len(line) for line in lines.splitlines()}) == 1


def test_accuracy_is_the_share_of_rows_predicted_right() -> None:
    evaluation = Evaluation(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), 0.1)
    assert evaluation.accuracy == 0.75
    assert evaluation.correct.tolist() == [True, True, False, True]


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_log_loss_agrees_with_scikit_learn_on_normalised_answers(
    stripes: Dataset, output: str
) -> None:
    network = Network.uniform((16, 8, 3), output=output)
    weights = initialise(network, np.random.default_rng(7))
    part = Examples(stripes.inputs, stripes.labels, 255)
    answers = probabilities(network, weights, part).astype(np.float64)
    expected = log_loss(part.labels, answers / answers.sum(axis=1, keepdims=True))
    assert evaluate(network, weights, part).log_loss == pytest.approx(expected, rel=1e-6)


def test_answers_do_not_depend_on_how_rows_are_cut_into_chunks(
    stripes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network((16, 8, 3))
    weights = initialise(network, np.random.default_rng(7))
    part = Examples(stripes.inputs, stripes.labels, 255)
    whole = probabilities(network, weights, part)
    monkeypatch.setattr("mlpserve_trainer.evaluation.scores.CHUNK_ROWS", 7)
    np.testing.assert_allclose(probabilities(network, weights, part), whole, rtol=1e-5)
    assert accuracy(network, weights, part) == np.mean(whole.argmax(axis=1) == part.labels)
