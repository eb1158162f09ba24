"""What calls return behaves like values and sequences."""

import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime

import numpy as np
import pytest

from mlpserve_client import BatchPrediction, Client, ModelRef, ModelVersion, Prediction
from tests.support.client import Pixels

REF = ModelRef("mnist", 3, "sha256:ab")
NAMES = ("cat", "dog", "owl")


def prediction(*probabilities: float) -> Prediction:
    array = np.array(probabilities, dtype=np.float32)
    label = int(array.argmax())
    return Prediction(label, NAMES[label], float(array[label]), array, REF, NAMES)


def batch(rows: int = 5) -> BatchPrediction:
    probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], rows).astype(np.float32)
    labels = probabilities.argmax(axis=1).astype(np.int32)
    return BatchPrediction(labels, probabilities, REF, NAMES)


def test_top_gives_the_likeliest_classes_first() -> None:
    top = prediction(0.2, 0.7, 0.1).top(2)

    assert [(c.label, c.name) for c in top] == [(1, "dog"), (0, "cat")]
    assert top[0].probability == pytest.approx(0.7)


@pytest.mark.parametrize(("k", "length"), [(0, 0), (-1, 0), (3, 3), (99, 3)])
def test_top_never_gives_more_than_there_is(k: int, length: int) -> None:
    assert len(prediction(0.2, 0.7, 0.1).top(k)) == length


def test_predictions_are_equal_when_every_probability_is() -> None:
    assert prediction(0.2, 0.7, 0.1) == prediction(0.2, 0.7, 0.1)
    assert hash(prediction(0.2, 0.7, 0.1)) == hash(prediction(0.2, 0.7, 0.1))
    assert prediction(0.2, 0.7, 0.1) != prediction(0.1, 0.7, 0.2)
    assert prediction(0.2, 0.7, 0.1) != "dog"


def test_a_version_can_be_a_key_of_a_dictionary() -> None:
    described = ModelVersion(
        ModelRef("mnist", 3, "sha256:ab"), "ACTIVE", "", (), (2,), ("cat",), datetime.now(UTC), {}
    )
    assert {described: 1}[replace(described)] == 1


def test_a_repr_is_short_and_says_what_matters() -> None:
    assert repr(prediction(0.2, 0.75, 0.05).top(1)) == "[ClassProbability(1, 'dog', 0.7500)]"
    assert repr(prediction(0.2, 0.75, 0.05)) == (
        "Prediction(label=1, name='dog', probability=0.7500, model='mnist' version 3)"
    )
    assert len(repr(batch(1000))) < 150


def test_a_result_cannot_be_changed(client: Client, pixels: Pixels) -> None:
    one, many = client.predict(pixels[0]), client.predict_batch(pixels)

    with pytest.raises(FrozenInstanceError):
        one.label = 3  # type: ignore[misc]  # which is what the test is about
    for array in (one.probabilities, many.labels, many.probabilities, many[0].probabilities):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_a_batch_is_a_sequence_of_predictions() -> None:
    answers = batch(5)

    assert len(answers) == len(list(answers)) == 5
    assert answers[-1] == list(answers)[4]
    assert answers.names == [answer.name for answer in answers]
    assert answers.index(answers[2]) == 2
    with pytest.raises(IndexError):
        answers[5]


def test_a_slice_of_a_batch_shares_its_memory() -> None:
    answers = batch(5)
    part = answers[1:3]

    assert isinstance(part, BatchPrediction)
    assert list(part) == [answers[1], answers[2]]
    assert np.shares_memory(part.probabilities, answers.probabilities)


def test_batches_are_equal_when_every_row_is() -> None:
    assert batch(5) == batch(5)
    assert hash(batch(5)) == hash(batch(5))
    assert batch(5) != batch(4)
    assert batch(5) != [1, 2]


def test_results_survive_pickling() -> None:
    assert pickle.loads(pickle.dumps(batch())) == batch()
    assert pickle.loads(pickle.dumps(prediction(0.2, 0.7, 0.1))) == prediction(0.2, 0.7, 0.1)
