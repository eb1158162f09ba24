"""Right answers, on the wire."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store
from tests.support.publishing import Publish
from tests.support.server import Serve
from tests.support.waiting import eventually

FLOAT32, UINT8 = pb.DATA_TYPE_FLOAT32, pb.DATA_TYPE_UINT8


def single(x: NDArray[Any], shape: tuple[int, ...] | None = None) -> pb.PredictRequest:
    return pb.PredictRequest(instance=tensor(x, shape))


def batch(x: NDArray[Any], shape: tuple[int, ...] | None = None) -> pb.BatchPredictRequest:
    return pb.BatchPredictRequest(instances=tensor(x, shape))


def tensor(x: NDArray[Any], shape: tuple[int, ...] | None) -> pb.Tensor:
    dtype = UINT8 if x.dtype == np.uint8 else FLOAT32
    return pb.Tensor(dtype=dtype, shape=shape or x.shape, data=x.tobytes())


@pytest.fixture
def x() -> NDArray[np.float32]:
    return np.random.default_rng(1).random((5, 3, 4), dtype=np.float32)


def test_a_single_answer_is_that_of_the_stored_weights(
    store: Store, publish: Publish, serve: Serve, x: NDArray[np.float32]
) -> None:
    version = publish()
    stubs = serve()
    eventually(stubs.serving)
    answer = stubs.prediction.Predict(single(x[0]))
    model = store.load(version)
    expected = model.predict(x[0].reshape(1, 12))[0]
    np.testing.assert_array_equal(np.array(answer.probabilities, np.float32), expected)
    assert answer.label == expected.argmax()
    assert (answer.model.name, answer.model.version) == ("mnist", version)
    assert answer.model.digest == model.manifest.digest


def test_a_batch_answers_every_row_in_order(
    store: Store, publish: Publish, serve: Serve, x: NDArray[np.float32]
) -> None:
    version = publish()
    stubs = serve()
    eventually(stubs.serving)
    answer = stubs.prediction.BatchPredict(batch(x))
    expected = store.load(version).predict(x.reshape(5, 12))
    assert list(answer.probabilities.shape) == [5, 3]
    assert answer.probabilities.dtype == FLOAT32
    got = np.frombuffer(answer.probabilities.data, "<f4").reshape(5, 3)
    np.testing.assert_array_equal(got, expected)
    assert list(answer.labels) == expected.argmax(axis=1).tolist()
    assert answer.model.version == version


def test_raw_pixels_are_scaled_by_the_maximum_of_the_manifest(
    publish: Publish, serve: Serve
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    pixels = np.arange(12, dtype=np.uint8)
    raw = stubs.prediction.Predict(single(pixels)).probabilities
    scaled = stubs.prediction.Predict(single((pixels / 16).astype(np.float32))).probabilities
    np.testing.assert_allclose(raw, scaled, atol=1e-6)


@pytest.mark.parametrize("shape", [(12,), (3, 4), (1, 3, 4), (2, 2, 3), (12, 1)])
def test_any_shape_of_the_right_size_is_an_instance(
    publish: Publish, serve: Serve, x: NDArray[np.float32], shape: tuple[int, ...]
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    expected = stubs.prediction.Predict(single(x[0])).probabilities
    assert stubs.prediction.Predict(single(x[0], shape)).probabilities == expected


def test_a_batch_larger_than_a_chunk_gives_each_row_its_answer(
    store: Store, publish: Publish, serve: Serve
) -> None:
    version = publish()
    stubs = serve()
    eventually(stubs.serving)
    many = np.random.default_rng(2).random((1500, 12), dtype=np.float32)
    answer = stubs.prediction.BatchPredict(batch(many))
    got = np.frombuffer(answer.probabilities.data, "<f4").reshape(1500, 3)
    # Another row count may take another path through BLAS: equal but for the last bits.
    np.testing.assert_allclose(got, store.load(version).predict(many), atol=1e-6)


def test_several_addresses_answer_alike(
    publish: Publish, serve: Serve, x: NDArray[np.float32], tmp_path: Path
) -> None:
    publish()
    stubs = serve(listen=("127.0.0.1:0", f"unix:{tmp_path}/socket"))
    eventually(stubs.serving)
    other = type(stubs)(f"unix:{tmp_path}/socket")
    assert other.prediction.Predict(single(x[0])) == stubs.prediction.Predict(single(x[0]))
    other.channel.close()
