"""A model of real numbers takes any finite floats by every call; one of pixels does not."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_client import Client, InvalidInputError
from mlpserve_client._cli.main import main
from mlpserve_model import InputValues, Network, Signature, Store
from tests.support.client import Connect, StartServer
from tests.support.publishing import publish_to

REAL = Signature((3, 4), 1.0, ("circle", "square", "star"), "real")
ROWS = np.random.default_rng(0).normal(0, 40, (5, 3, 4)).astype(np.float32)
CALLS: dict[str, Callable[[Client, Any], list[Any]]] = {
    "predict": lambda client, x: [client.predict(row).probabilities for row in x],
    "predict_batch": lambda client, x: list(client.predict_batch(x).probabilities),
    "predict_stream": lambda client, x: [p.probabilities for p in client.predict_stream(x)],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", "mnist")


@pytest.fixture
def client(store: Store, start: StartServer, connect: Connect) -> Client:
    values = InputValues("real", -100, 100, tuple(ROWS[1].ravel().tolist()))
    network = Network((12, 8, 3), ("silu", "softmax"))
    publish_to(store, signature=REAL, input_values=values, network=network)
    return connect(start().address)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_any_floats_get_the_models_answer(
    call: str, dtype: Any, client: Client, store: Store
) -> None:
    expected = store.load(1).predict(ROWS.reshape(5, 12))
    np.testing.assert_allclose(CALLS[call](client, ROWS.astype(dtype)), expected, atol=1e-6)


def test_attributions_are_complete_for_real_numbers(client: Client) -> None:
    found = client.explain(ROWS[0], baseline=ROWS[2])
    difference = found.score - found.baseline_score
    np.testing.assert_allclose(found.attributions.sum(), difference, rtol=1e-3, atol=1e-3)


def test_real_numbers_are_compared_with_their_means_unless_a_baseline_is_given(
    client: Client,
) -> None:
    usual, means = client.explain(ROWS[0]), client.explain(ROWS[0], baseline=ROWS[1])
    np.testing.assert_allclose(usual.attributions, means.attributions, rtol=1e-4, atol=1e-4)
    zeros = client.explain(ROWS[0], baseline=np.zeros((3, 4)))
    assert np.abs(zeros.attributions - means.attributions).max() > 1


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("values", [ROWS.astype(np.uint8), np.eye(3, 4, dtype=int)[np.newaxis]])
def test_integers_are_refused_with_the_reason(call: str, values: Any, client: Client) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidInputError, match="the model takes real numbers") as caught:
            CALLS[call](client, values)
    assert caught.value.field.endswith(".dtype")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_is_refused(value: float, client: Client) -> None:
    with pytest.raises(InvalidInputError, match="expected finite values"):
        client.predict(np.full((3, 4), value))


def test_an_image_is_refused_since_its_pixels_have_no_scale(client: Client) -> None:
    image = pytest.importorskip("PIL.Image").new("L", (4, 3))
    with pytest.raises(InvalidInputError, match="real numbers in the units of its training data"):
        client.predict(image)


def test_the_description_says_what_a_model_takes(client: Client) -> None:
    described = client.model()
    assert (described.input_kind, described.input_maximum) == ("real", None)
    assert described.input_values is not None
    assert described.input_values.kind == "real"


def test_the_command_bench_sends_floats(
    store: Store, start: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_to(store, signature=REAL)
    command = ["bench", "--seconds", "0.1", "--threads", "1", "--target", start().address]
    assert main(command) == 0
    assert "calls/s" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["scaled", "binary", "raw"])
@pytest.mark.parametrize("batch", ["1", "8"])
def test_the_command_bench_sends_what_the_model_was_trained_on(
    kind: str, batch: str, store: Store, start: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_to(store, input_values=InputValues(kind, 0, 1 if kind == "scaled" else 16))
    command = ["bench", "--seconds", "0.1", "--threads", "1", "--target", start().address]
    assert main([*command, "--batch", batch]) == 0
    assert "calls/s" in capsys.readouterr().out


@pytest.mark.parametrize("call", CALLS)
def test_a_model_of_pixels_refuses_them_with_what_to_do(
    call: str, store: Store, start: StartServer, connect: Connect
) -> None:
    publish_to(store)
    client = connect(start().address)
    assert client.model().input_kind == "pixels"
    with pytest.raises(InvalidInputError, match="divide by the maximum") as caught:
        CALLS[call](client, np.abs(ROWS))
    assert caught.value.field.endswith(".data")
    with pytest.raises(InvalidInputError, match="undo any centring"):
        CALLS[call](client, ROWS)


@pytest.mark.parametrize(
    ("output", "kind"),
    [("softmax", "distribution"), ("sigmoid", "independent"), ("identity", "values")],
)
def test_every_answer_says_what_its_probabilities_are(
    output: str, kind: str, store: Store, start: StartServer, connect: Connect
) -> None:
    publish_to(store, signature=REAL, network=Network((12, 8, 3), ("tanh", output)))
    client = connect(start().address)
    answers = [client.predict(ROWS[0]), *client.predict_stream(ROWS)]
    batches = [client.predict_batch(ROWS), client.predict_batch(ROWS[:0])]
    described = [client.model(), *client.models()]
    assert {answer.output_kind for answer in answers} == {kind}
    assert {batch.output_kind for batch in batches} == {kind}
    assert {version.output_kind for version in described} == {kind}


def test_identity_outputs_are_answered_as_they_are(
    store: Store,
    start: StartServer,
    connect: Connect,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish_to(store, signature=REAL, network=Network((12, 8, 3), ("tanh", "identity")))
    server = start()
    answers = np.array(CALLS["predict"](connect(server.address), ROWS))
    np.testing.assert_allclose(answers, store.load(1).predict(ROWS.reshape(5, 12)), atol=1e-5)
    assert answers.min() < 0

    np.save(tmp_path / "rows.npy", ROWS)
    assert main(["predict", str(tmp_path / "rows.npy"), "--target", server.address]) == 0
    assert not re.search(r"\d%", capsys.readouterr().out)
