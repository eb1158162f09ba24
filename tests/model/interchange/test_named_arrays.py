""".safetensors and .npz files: arrays whose names and shapes tell the network."""

import json
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from mlpserve_model import UnsupportedModel, forward
from mlpserve_model.interchange import npz_file
from mlpserve_model.interchange.imported import ImportedNetwork
from mlpserve_model.interchange.importing import ImportOptions, import_network

RNG = np.random.default_rng(4)
Arrays = Mapping[str, NDArray[Any]]


def matrix(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


W1, B1, W2, B2 = matrix(4, 5), matrix(5), matrix(5, 3), matrix(3)
X = matrix(20, 4)


def softmax(z: NDArray[np.float32]) -> NDArray[np.float32]:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


EXPECTED = softmax(np.maximum(X @ W1 + B1, 0) @ W2 + B2)
Read = Callable[..., ImportedNetwork]


@pytest.fixture(params=["safetensors", "npz"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Read:
    """Imports named arrays, written by the format's own library."""

    def read(arrays: Arrays, **options: Any) -> ImportedNetwork:
        path = tmp_path / f"network.{request.param}"
        if request.param == "npz":
            named: Any = dict(arrays)
            np.savez_compressed(path, **named)
        else:
            safetensors.numpy.save_file(dict(arrays), path)
        given = {"activations": ("relu", "softmax")} | options
        return import_network(path, ImportOptions(**given))

    return read


def assert_computes(found: ImportedNetwork, expected: NDArray[np.float32] = EXPECTED) -> None:
    np.testing.assert_allclose(forward(found.network, found.weights, X), expected, atol=1e-5)


NAMED: dict[str, Arrays] = {
    "as here": {"w1": W1, "b1": B1, "w2": W2, "b2": B2},
    "PyTorch": {
        "fc1.weight": W1.T.copy(), "fc1.bias": B1, "fc2.weight": W2.T.copy(), "fc2.bias": B2,
    },
    "PyTorch's Sequential, 2 before 10": {
        "10.weight": W2.T.copy(), "10.bias": B2, "2.weight": W1.T.copy(), "2.bias": B1,
    },
    "Keras": {
        "dense/kernel": W1, "dense/bias": B1, "dense_1/kernel": W2, "dense_1/bias": B2,
    },
    "scikit-learn": {"coefs_0": W1, "intercepts_0": B1, "coefs_1": W2, "intercepts_1": B2},
    "doubles and halves": {
        "w1": W1.astype(np.float64), "b1": B1, "w2": W2, "b2": B2.astype(np.float64),
    },
}  # fmt: skip


@pytest.mark.parametrize("names", NAMED)
def test_names_of_other_libraries_are_known(names: str, read: Read) -> None:
    assert_computes(read(NAMED[names]))


def test_a_layer_without_a_bias_has_none(read: Read) -> None:
    found = read({"w1": W1, "w2": W2, "b2": B2})
    assert_computes(found, softmax(np.maximum(X @ W1, 0) @ W2 + B2))


def test_batch_normalisation_of_pytorch_comes_before_the_activation(read: Read) -> None:
    gamma, beta, mean = matrix(5), matrix(5), matrix(5)
    variance = RNG.uniform(0.5, 2, 5).astype(np.float32)
    found = read({
        "0.weight": W1.T.copy(), "0.bias": B1,
        "1.weight": gamma, "1.bias": beta, "1.running_mean": mean, "1.running_var": variance,
        "1.num_batches_tracked": np.array(7), "3.weight": W2.T.copy(), "3.bias": B2,
    })  # fmt: skip
    z = (X @ W1 + B1 - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    assert_computes(found, softmax(np.maximum(z, 0) @ W2 + B2))


def test_the_order_of_the_layers_can_be_given(read: Read) -> None:
    arrays = {"second.w": W1, "second.b": B1, "first.w": W2, "first.b": B2}
    with pytest.raises(UnsupportedModel, match="give the order with --layers"):
        read(arrays)
    assert_computes(read(arrays, layers=("second", "first")))
    with pytest.raises(UnsupportedModel, match="--layers says second"):
        read(arrays, layers=("second",))


def test_square_layers_need_the_orientation(read: Read) -> None:
    square = {"w1": matrix(4, 4), "b1": matrix(4), "w2": matrix(4, 4), "b2": matrix(4)}
    with pytest.raises(UnsupportedModel, match="--orientation"):
        read(square)
    as_here, turned = (
        read(square, orientation=way).weights for way in ("inputs-units", "units-inputs")
    )
    np.testing.assert_array_equal(as_here[0].w, square["w1"])
    np.testing.assert_array_equal(turned[1].w, square["w2"].T)


REFUSED: dict[str, tuple[Arrays, str]] = {
    "convolution": ({"conv.weight": np.ones((2, 1, 3, 3), "f4")}, "the array conv.weight of shape"),
    "a stranger": ({"w1": W1, "optimizer": B1}, "the array optimizer of shape"),
    "no matrix": ({"w1": B1, "b1": B1}, "no weights of two dimensions"),
    "layer normalisation": ({"w1": W1, "w2": W2, "n.weight": B1}, "the layer n has w"),
    "a bias of another size": ({"w1": W1, "b1": B2, "w2": W2}, "do not fit together"),
    "no values": ({"w1": np.empty((0, 2**40), "f4"), "b1": np.empty(0, "f4")}, "has no values"),
    "twice": ({"w1": W1, "weight1": W1}, "two arrays for one purpose"),
    "not finite": ({"w1": W1 * np.nan, "w2": W2}, "not finite"),
    "beyond float32": ({"w1": W1.astype(np.float64) * 1e300, "w2": W2}, "not finite in float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arrays_that_are_no_network_are_refused(case: str, read: Read) -> None:
    arrays, words = REFUSED[case]
    with pytest.raises(UnsupportedModel, match=words):
        read(arrays)


def test_activations_are_asked_for(read: Read) -> None:
    with pytest.raises(UnsupportedModel, match=r"no activations for the 2 layers .*--activations"):
        read(NAMED["as here"], activations=())
    with pytest.raises(UnsupportedModel, match="3 activations for the 2 layers"):
        read(NAMED["as here"], activations=("relu", "relu", "softmax"))


def test_halves_and_bfloats_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    for kind, data in (
        ("F16", W1.astype(np.float16).tobytes()),
        ("BF16", (W1.view(np.uint32) >> 16).astype(np.uint16).tobytes()),
    ):
        arrays = {"w1": (kind, (4, 5), data), "b1": ("F32", (5,), B1.tobytes())}
        path.write_bytes(safetensors_file(arrays))
        found = import_network(path, ImportOptions(activations=("softmax",)))
        np.testing.assert_allclose(found.weights[0].w, W1, rtol=0.01)


def safetensors_file(arrays: Mapping[str, tuple[str, Any, bytes]], **changed: Any) -> bytes:
    header, parts, end = {}, b"", 0
    for name, (kind, shape, data) in arrays.items():
        offsets = [end, end + len(data)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets} | changed
        parts, end = parts + data, offsets[1]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + parts


FLOATS = W1.tobytes()
DAMAGED = {
    "empty": (b"", "not a safetensors file"),
    "cut off": (safetensors_file({"w1": ("F32", (4, 5), FLOATS)})[:-1], "79 bytes of values"),
    "a header of gigabytes": ((2**33).to_bytes(8, "little") + b"{}", "cut off"),
    "no JSON": ((4).to_bytes(8, "little") + b"abcd", "not JSON"),
    "a claim of gigabytes": (
        safetensors_file({"w1": ("F32", (4, 5), FLOATS)}, shape=[2**16, 2**15]), "its shape needs"
    ),
    "an overlap": (
        safetensors_file({"w1": ("F32", (4, 5), FLOATS), "w2": ("F32", (4, 5), FLOATS)},
                         data_offsets=[0, 80]), "begins at 0, expected 80",
    ),
    "a hole": (
        safetensors_file({"w1": ("F32", (4, 5), FLOATS)}, data_offsets=[8, 88]), "expected 0"
    ),
    "another type": (safetensors_file({"w1": ("F8_E4M3", (4, 5), FLOATS)}), "expected one of F64"),
    "a negative size": (
        safetensors_file({"w1": ("F32", (4, 5), FLOATS)}, shape=[-4, -5]), "not whole numbers"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_safetensors_file_is_refused(case: str, tmp_path: Path) -> None:
    data, words = DAMAGED[case]
    path = tmp_path / "network.safetensors"
    path.write_bytes(data)
    with pytest.raises(UnsupportedModel, match=words):
        import_network(path, ImportOptions(activations=("softmax",)))


def test_an_npz_that_inflates_beyond_the_limit_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz_file, "MAX_FILE_BYTES", 2**26)
    path = tmp_path / "network.npz"
    zeros = np.zeros((2**11, 2**11), np.float64)
    np.savez_compressed(path, w1=zeros, w2=zeros, w3=zeros)
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedModel, match="bytes of values"):
            import_network(path, ImportOptions(activations=("softmax",)))
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
