"""An explanation is the server's, by both clients, and old servers are named as such."""

import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from mlpserve_client import (
    Client,
    Explanation,
    InvalidInputError,
    ModelNotFoundError,
    ModelRef,
    ServerError,
)
from mlpserve_client.testing import ModelServer, serve
from mlpserve_model import Store
from mlpserve_model.nn.attributions import attributions
from tests.support.client import Connect, Pixels, StartScripted


def explanation(values: list[list[float]]) -> Explanation:
    array = np.array(values, np.float32)
    return Explanation(1, "dog", 2.5, -0.5, array, (), ModelRef("mnist", 3, "sha256:ab"))


def test_an_explanation_is_that_of_the_stored_weights(
    client: Client, server: ModelServer, pixels: Pixels
) -> None:
    model = Store(server.store, "mnist").load(1)
    x = pixels[:1].reshape(1, -1).astype(np.float32) / np.float32(255)
    expected = attributions(model.manifest.network, model.weights, x, np.zeros(784, np.float32))

    found = client.explain(pixels[0], activations=True)

    assert found.attributions.shape == (28, 28)
    assert_allclose(found.attributions.ravel(), expected.values[0], atol=1e-6)
    assert found.label == client.predict(pixels[0]).label == int(expected.labels[0])
    assert found.name == str(found.label)
    assert found.score == pytest.approx(float(expected.scores[0]), abs=1e-5)
    assert found.baseline_score == pytest.approx(float(expected.baseline_scores[0]), abs=1e-5)
    (hidden,) = found.activations
    assert_allclose(hidden, expected.activations[0][0], atol=1e-6)
    assert (found.model.name, found.model.version) == ("mnist", 1)


def test_the_attributions_sum_to_the_difference_of_the_scores(
    client: Client, pixels: Pixels
) -> None:
    found = client.explain(pixels[0], label=3, baseline=np.full((28, 28), 0.5))

    assert (found.label, found.activations) == (3, ())
    assert found.attributions.sum() == pytest.approx(found.score - found.baseline_score, abs=1e-4)


def test_an_image_is_fitted_as_for_predict(client: Client) -> None:
    image = Image.new("L", (80, 60))
    image.paste(255, (30, 20, 36, 40))

    found, answer = client.explain(image, baseline=image), client.predict(image)

    assert found.label == answer.label
    assert not found.attributions.any()  # it is its own baseline


def test_a_version_is_selected(connect: Connect, pixels: Pixels) -> None:
    with serve() as server:
        server.publish()
        client = connect(server.target)

        assert client.explain(pixels[0], version=1).model.version == 1
        with pytest.raises(ModelNotFoundError):
            client.explain(pixels[0], alias="nobody")


def test_names_come_from_the_version(connect: Connect) -> None:
    with serve(input_shape=(2, 2), class_names=("cat", "dog")) as server:
        found = connect(server.target).explain([[0, 255], [255, 0]])

    assert found.name in ("cat", "dog")
    assert found.attributions.shape == (2, 2)


@pytest.mark.parametrize("label", [-1, "7", 1.5, 2**31])
def test_a_label_that_cannot_be_sent_is_refused(client: Client, label: int) -> None:
    with pytest.raises(InvalidInputError, match="label"):
        client.explain(np.zeros((28, 28)), label=label)


def test_a_label_that_is_no_class_is_refused_by_the_server(client: Client) -> None:
    with pytest.raises(InvalidInputError, match="label 10, expected 0 to 9") as caught:
        client.explain(np.zeros((28, 28)), label=10)
    assert caught.value.field == "label"


def test_a_server_without_explain_is_said_to_be_older(
    connect: Connect, scripted: StartScripted
) -> None:
    client = connect(scripted().target)

    with pytest.raises(ServerError, match=r"does not offer this call.*older"):
        client.explain([0.0, 0.5])


def test_top_gives_what_counts_most_whichever_sign_it_has() -> None:
    found = explanation([[0.1, -2], [0, 1.5]])

    assert [(v.position, v.attribution) for v in found.top(2)] == [((0, 1), -2), ((1, 1), 1.5)]
    assert [len(found.top(k)) for k in (-1, 0, 99)] == [0, 0, 4]


def test_an_explanation_is_a_value() -> None:
    one = explanation([[1, 2]])

    assert one == explanation([[1, 2]]) == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(explanation([[1, 2]]))
    assert one not in (explanation([[1, 3]]), "dog")
    assert repr(one) == (
        "Explanation(label=1, name='dog', score=2.5000, baseline_score=-0.5000, attributions of "
        "shape (1, 2), model='mnist' version 3)"
    )
    assert repr(one.top(1)) == "[ValueAttribution((0, 1), 2.0000)]"
    with pytest.raises(FrozenInstanceError):
        one.label = 3  # type: ignore[misc]  # which is what the test is about


def test_its_arrays_cannot_be_changed(client: Client, pixels: Pixels) -> None:
    found = client.explain(pixels[0], activations=True)

    for array in (found.attributions, *found.activations):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    assert_array_equal(found.attributions, client.explain(pixels[0]).attributions)
