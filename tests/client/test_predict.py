"""One instance: whatever form it comes in, the answer is the model's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_client import Client, InvalidInputError, ModelNotFoundError, Prediction
from mlpserve_client.testing import serve
from mlpserve_model import InputValues, Store
from tests.support.client import Connect, Expected, Pixels, StartScripted, StartServer
from tests.support.publishing import publish_to
from tests.support.waiting import wait_for

FORMS: dict[str, Callable[[Pixels], Any]] = {
    "uint8": lambda x: x,
    "flat": lambda x: x.ravel(),
    "with a channel": lambda x: x[..., np.newaxis],
    "one of one": lambda x: x[np.newaxis],
    "strided": lambda x: np.asfortranarray(x),
    "int64": lambda x: x.astype(np.int64),
    "lists of integers": lambda x: x.tolist(),
    "float32": lambda x: (x / 255).astype(np.float32),
    "float64": lambda x: x / 255,
    "big-endian": lambda x: (x / 255).astype(">f4"),
    "lists of floats": lambda x: (x / 255).tolist(),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The store of the servers that `start` starts."""
    return Store(tmp_path / "store", "mnist")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_instance_gets_the_same_answer(
    client: Client, pixels: Pixels, expected: Expected, form: str
) -> None:
    prediction = client.predict(FORMS[form](pixels[0]))

    np.testing.assert_allclose(prediction.probabilities, expected(pixels[:1])[0], atol=1e-6)
    assert prediction.label == expected(pixels[:1])[0].argmax()


def test_booleans_are_black_and_white(client: Client, pixels: Pixels, expected: Expected) -> None:
    drawing = pixels[0] > 127

    prediction = client.predict(drawing)

    white = np.where(drawing, 255, 0).astype(np.uint8)[np.newaxis]
    np.testing.assert_allclose(prediction.probabilities, expected(white)[0], atol=1e-6)


def test_a_prediction_names_its_class_and_its_version(client: Client, pixels: Pixels) -> None:
    prediction = client.predict(pixels[0])

    assert isinstance(prediction, Prediction)
    assert prediction.name == str(prediction.label)
    assert prediction.probability == prediction.probabilities.max()
    assert (prediction.model.name, prediction.model.version) == ("mnist", 1)
    assert prediction.model.digest.startswith("sha256:")


def test_the_names_are_those_of_the_version_that_answered(connect: Connect) -> None:
    with serve(input_shape=(4,), class_names=("cat", "dog")) as server:
        client = connect(server.target)

        assert client.predict([0.1, 0.2, 0.3, 0.4]).class_names == ("cat", "dog")


def test_a_version_or_an_alias_can_be_asked_for(client: Client, pixels: Pixels) -> None:
    assert client.predict(pixels[0], version=1).model.version == 1
    assert client.predict(pixels[0], alias="champion").model.version == 1


@pytest.mark.parametrize("selection", [{"version": 99}, {"alias": "nobody"}])
def test_an_unknown_version_or_alias_is_not_found(
    client: Client, pixels: Pixels, selection: dict[str, Any]
) -> None:
    with pytest.raises(ModelNotFoundError, match=r"99|nobody"):
        client.predict(pixels[0], **selection)


@pytest.mark.parametrize(
    "selection",
    [
        {"version": 1, "alias": "champion"},
        {"version": 0},
        {"version": 2**63},
        {"version": "1"},
        {"version": 1.5},
        {"alias": "\ud800"},
        {"alias": 1},
    ],
    ids=repr,
)
def test_a_selection_that_makes_no_sense_is_refused(
    client: Client, pixels: Pixels, selection: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError):
        client.predict(pixels[0], **selection)


def test_a_wrong_shape_is_refused_with_the_field_and_the_size_expected(client: Client) -> None:
    with pytest.raises(InvalidInputError, match="784") as caught:
        client.predict(np.zeros((5, 5), dtype=np.uint8))

    assert caught.value.field.startswith("instance")


@pytest.mark.parametrize("call", ["predict", "predict_batch", "predict_stream"])
def test_scaled_values_as_integers_are_warned_of(client: Client, call: str) -> None:
    binary = (np.arange(3 * 784).reshape(3, 28, 28) % 3 == 0).astype(int)

    def classify(values: npt.NDArray[Any]) -> object:
        if call == "predict":
            return client.predict(values[0])
        return list(getattr(client, call)(values))

    with pytest.warns(UserWarning, match="raw values of 0 to 255"):
        classify(binary)
    for meant in (binary.astype(bool), binary.astype(float), binary.astype(np.uint8), binary * 9):
        classify(meant)  # a warning would be an error


@pytest.mark.parametrize("kind", ["binary", "scaled"])
@pytest.mark.parametrize("dtype", [int, np.uint8])
@pytest.mark.parametrize("call", ["predict", "predict_batch", "predict_stream"])
def test_integers_of_0_and_1_are_refused_where_scaled_values_were_trained_on(
    start: StartServer, store: Store, connect: Connect, kind: str, dtype: type, call: str
) -> None:
    publish_to(store, input_values=InputValues(kind, 0, 1))
    client = connect(start().address)
    binary = (np.arange(24).reshape(2, 3, 4) % 3 == 0).astype(dtype)

    def classify(values: npt.NDArray[Any]) -> object:
        if call == "predict":
            return client.predict(values[0])
        return list(getattr(client, call)(values))

    with pytest.raises(InvalidInputError, match="the model was trained on scaled ones"):
        classify(binary)
    for meant in (binary.astype(bool), binary.astype(float), binary * 9, binary * 0):
        classify(meant)
    publish_to(store, seed=1, input_values=InputValues("raw", 0, 1))
    wait_for(lambda: client.model().version == 2, 20)
    classify(binary)  # neither refused nor warned of: 1 is as high as the training data reached


def test_a_model_says_what_values_it_was_trained_on(
    start: StartServer, store: Store, connect: Connect
) -> None:
    publish_to(store, input_values=InputValues("scaled", 0.25, 0.5))
    client = connect(start().address)
    values = client.model().input_values
    assert values is not None
    assert (values.kind, values.low, values.high) == ("scaled", 0.25, 0.5)
    publish_to(store, seed=1, input_values=InputValues("fractal", 0, 1))  # of a later release
    wait_for(lambda: client.model().version == 2, 20)
    values = client.model().input_values
    assert values is not None
    assert values.kind == "unknown"


def test_an_old_server_does_not_say_the_maximum_and_nothing_is_warned_of(
    connect: Connect, scripted: StartScripted
) -> None:
    client = connect(scripted().target)

    assert client.model().input_maximum is None
    assert client.predict([0, 1]).name == "yes"
