"""ONNX models that are chains of layers become networks with the same numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mlpserve_model import forward
from mlpserve_model.interchange.imported import ImportedNetwork
from mlpserve_model.interchange.importing import ImportOptions, import_network
from tests.support.onnx_models import model, node, save

RNG = np.random.default_rng(3)


def matrix(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


W1, B1, W2, B2 = matrix(4, 5), matrix(5), matrix(5, 3), matrix(3)
WEIGHTS = {"w1": W1, "b1": B1, "w2": W2, "b2": B2}
TAIL = [node("Gemm", "h w2 b2", "z"), node("Softmax", "z", "y", axis=-1)]

Read = Callable[..., ImportedNetwork]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Imports a model; import_network itself compares its numbers with onnxruntime's."""

    def read(made: Any, **options: Any) -> ImportedNetwork:
        path = save(made, tmp_path / "model.onnx")
        return import_network(path, ImportOptions(**options))

    return read


def hidden(*nodes: Any, **constants: NDArray[Any]) -> Any:
    """A network whose hidden layer's activation is what these nodes make h of z1."""
    return model([node("Gemm", "x w1 b1", "z1"), *nodes, *TAIL], WEIGHTS | constants)


ACTIVATIONS = {
    "relu": [node("Relu", "z1", "h")],
    "sigmoid": [node("Sigmoid", "z1", "h")],
    "tanh": [node("Tanh", "z1", "h")],
    "identity": [node("Identity", "z1", "h")],
    "leaky_relu": [node("LeakyRelu", "z1", "h")],
    "elu": [node("Elu", "z1", "h")],
    "silu": [node("Sigmoid", "z1", "s"), node("Mul", "z1 s", "h")],
    "gelu": [
        node("Div", "z1 root2", "q"), node("Erf", "q", "e"), node("Add", "e one", "f"),
        node("Mul", "z1 f", "g"), node("Mul", "g half", "h"),
    ],
}  # fmt: skip
SCALARS: dict[str, NDArray[Any]] = {
    "root2": np.array(np.sqrt(2), np.float32), "one": np.array(1, np.float32),
    "half": np.array([0.5], np.float32), "zero": np.array(0, np.float32),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_read_as_exporters_write_it(name: str, read: Read) -> None:
    found = read(hidden(*ACTIVATIONS[name], **SCALARS))
    assert found.network.layer_sizes == (4, 5, 3)
    assert found.network.activations == (name, "softmax")
    np.testing.assert_array_equal(found.weights[0].w, W1)
    np.testing.assert_array_equal(found.weights[1].b, B2)


@pytest.mark.parametrize(
    ("nodes", "name"),
    [
        ([node("Max", "z1 zero", "h")], "relu"),
        ([node("Clip", "z1 zero", "h")], "relu"),
        ([node("PRelu", "z1 slope", "h")], "leaky_relu"),
        ([node("Neg", "z1", "n"), node("Exp", "n", "e"), node("Add", "e one", "d"),
          node("Reciprocal", "d", "h")], "sigmoid"),
    ],
)  # fmt: skip
def test_an_activation_is_known_by_its_values(nodes: list[Any], name: str, read: Read) -> None:
    slope = np.full(5, 0.01, np.float32)
    assert read(hidden(*nodes, **SCALARS, slope=slope)).network.activations[0] == name


def test_matmul_and_add_with_a_transposed_weight_as_pytorch_writes_it(read: Read) -> None:
    nodes = [
        node("Transpose", "wt", "w1", perm=[1, 0]),
        node("MatMul", "x w1", "m"), node("Add", "b1 m", "z1"), node("Relu", "z1", "h"),
        *TAIL,
    ]  # fmt: skip
    constants = {"wt": np.ascontiguousarray(W1.T), "b1": B1, "w2": W2, "b2": B2}
    found = read(model(nodes, constants))
    np.testing.assert_array_equal(found.weights[0].w, W1)
    np.testing.assert_array_equal(found.weights[0].b, B1)


@pytest.mark.parametrize("kind", [np.float64, np.float16, "bfloat16"])
def test_weights_of_other_precisions(kind: Any, read: Read) -> None:
    if kind == "bfloat16":
        upper = (W1.view(np.uint32) >> 16).astype(np.uint16)
        made = helper.make_tensor("w", TensorProto.BFLOAT16, W1.shape, upper.tobytes(), raw=True)
    else:
        made = numpy_helper.from_array(W1.astype(kind), "w")
    nodes = [node("Cast", "w", "w1", to=TensorProto.FLOAT), node("Gemm", "x w1 b1", "z1"),
             node("Relu", "z1", "h"), *TAIL]  # fmt: skip
    whole = model(nodes, {key: array for key, array in WEIGHTS.items() if key != "w1"})
    whole.graph.initializer.append(made)
    np.testing.assert_allclose(read(whole).weights[0].w, W1, rtol=0.01)


def test_gemm_with_its_attributes(read: Read) -> None:
    gemm = node("Gemm", "x wt c", "h", transB=1, alpha=0.5, beta=2.0)
    constants = {"wt": np.ascontiguousarray(W1.T), "c": B1[None], "w2": W2, "b2": B2}
    found = read(model([gemm, *TAIL], constants))
    np.testing.assert_allclose(found.weights[0].w, W1 / 2)
    np.testing.assert_allclose(found.weights[0].b, B1 * 2)
    assert found.network.activations == ("identity", "softmax")


def statistics(size: int) -> dict[str, NDArray[Any]]:
    variance = RNG.uniform(0.5, 2, size).astype(np.float32)
    return {"gamma": matrix(size), "beta": matrix(size), "mean": matrix(size), "var": variance}


@pytest.mark.parametrize(
    "order",
    [
        [node("BatchNormalization", "z1 gamma beta mean var", "n"), node("Relu", "n", "h")],
        [node("Relu", "z1", "a"), node("BatchNormalization", "a gamma beta mean var", "h")],
    ],
    ids=["before the activation", "after it"],
)
def test_batch_normalisation_goes_into_a_layer(order: list[Any], read: Read) -> None:
    found = read(hidden(*order, **statistics(5)))
    assert found.network.layer_sizes == (4, 5, 3)


def test_what_scales_the_inputs_goes_into_the_first_layer(read: Read) -> None:
    nodes = [
        node("Sub", "x mean", "c"), node("Div", "c var", "n"),
        node("Gemm", "n w1 b1", "z1"), node("Tanh", "z1", "h"), *TAIL,
    ]  # fmt: skip
    found = read(model(nodes, WEIGHTS | statistics(4)))
    assert found.network.layer_sizes == (4, 5, 3)


def test_images_are_flattened_in_every_way_that_exporters_write(read: Read) -> None:
    """Flatten; a constant Reshape; and x.view(x.size(0), -1), which computes the shape."""
    flattened = {
        "Flatten": [node("Flatten", "x", "f")],
        "Reshape": [node("Reshape", "x to", "f")],
        "view": [
            node("Shape", "x", "s"), node("Gather", "s first", "n"),
            node("Unsqueeze", "n axis", "u"),
            node("Concat", "u rest", "t", axis=0), node("Reshape", "x t", "f"),
        ],
    }  # fmt: skip
    constants = {
        "to": np.array([-1, 4], np.int64), "first": np.array(0, np.int64),
        "axis": np.array([0], np.int64), "rest": np.array([-1], np.int64),
    }  # fmt: skip
    for nodes in flattened.values():
        chain = [*nodes, node("Gemm", "f w1 b1", "z1"), node("Relu", "z1", "h"), *TAIL]
        found = read(model(chain, WEIGHTS | constants, shape=("rows", 1, 2, 2)))
        assert found.metadata.input_shape == (1, 2, 2)


def test_bytes_are_pixels_whose_scale_goes_into_the_first_layer(read: Read) -> None:
    nodes = [
        node("Cast", "x", "f", to=TensorProto.FLOAT), node("Div", "f most", "s"),
        node("Gemm", "s w1 b1", "z1"), node("Relu", "z1", "h"), *TAIL,
    ]  # fmt: skip
    most = np.array(255, np.float32)
    found = read(model(nodes, WEIGHTS | {"most": most}, kind=TensorProto.UINT8))
    assert (found.metadata.input_kind, found.metadata.input_maximum) == ("pixels", 255)
    np.testing.assert_allclose(found.weights[0].w, W1, rtol=1e-6)


KINDS = (
    "INT64",
    "INT32",
    "INT16",
    "INT8",
    "UINT64",
    "UINT32",
    "UINT16",
    "BOOL",
    "FLOAT16",
    "DOUBLE",
)


@pytest.mark.parametrize("kind", [TensorProto.DataType.Value(name) for name in KINDS])
def test_inputs_of_other_types(kind: int, read: Read) -> None:
    nodes = [node("Cast", "x", "f", to=TensorProto.FLOAT), node("Gemm", "f w1 b1", "z1"),
             node("Relu", "z1", "h"), *TAIL]  # fmt: skip
    assert read(model(nodes, WEIGHTS, kind=kind)).network.layer_sizes == (4, 5, 3)


def test_a_network_that_computes_in_half_precision(read: Read) -> None:
    halves = {name: (8 * array).astype(np.float16) for name, array in WEIGHTS.items()}
    chain = [node("Cast", "x", "f", to=TensorProto.FLOAT16), node("Gemm", "f w1 b1", "z1"),
             node("Relu", "z1", "h"), TAIL[0], node("Softmax", "z", "s", axis=-1),
             node("Cast", "s", "y", to=TensorProto.FLOAT)]  # fmt: skip
    found = read(model(chain, halves))
    np.testing.assert_array_equal(found.weights[1].w, halves["w2"].astype(np.float32))
    assert "in float16" in found.notes[0]


def test_logits_stay_as_they_are_unless_the_caller_says_otherwise(read: Read) -> None:
    made = model(
        [node("Gemm", "x w1 b1", "z1"), node("Relu", "z1", "h"), TAIL[0]], WEIGHTS, outputs="z"
    )
    assert read(made).network.activations == ("relu", "identity")
    softmax = read(made, output_activation="softmax")
    assert softmax.network.activations == ("relu", "softmax")
    np.testing.assert_allclose(softmax.weights[1].w, W2)


def test_log_probabilities_become_probabilities(read: Read) -> None:
    chain = [node("Gemm", "x w1 b1", "z1"), node("Relu", "z1", "h"), TAIL[0]]
    found = read(model([*chain, node("LogSoftmax", "z", "y", axis=1)], WEIGHTS))
    assert found.network.activations == ("relu", "softmax")


def test_one_sigmoid_output_becomes_two_classes(read: Read) -> None:
    nodes = [node("Gemm", "x w1 b1", "z1"), node("Relu", "z1", "h"), node("Gemm", "h w b", "z"),
             node("Sigmoid", "z", "y")]  # fmt: skip
    w, b = matrix(5, 1), matrix(1)
    found = read(model(nodes, WEIGHTS | {"w": w, "b": b}))
    assert found.network.layer_sizes == (4, 5, 2)
    x = matrix(20, 4)
    probability = 1 / (1 + np.exp(-(np.maximum(x @ W1 + B1, 0) @ w + b)))
    expected = np.hstack([1 - probability, probability])
    np.testing.assert_allclose(forward(found.network, found.weights, x), expected, atol=1e-6)


def test_labels_beside_probabilities_tell_the_class_names(read: Read) -> None:
    nodes = [
        node("Gemm", "x w1 b1", "z1"), node("Relu", "z1", "h"), *TAIL,
        node("ArgMax", "y", "a", axis=1),
        node("ArrayFeatureExtractor", "names a", "l", "ai.onnx.ml"),
    ]  # fmt: skip
    names = np.array([b"ash", b"birch", b"cedar"], object)
    found = read(model(nodes, WEIGHTS | {"names": names}, outputs=("l", "y")))
    assert found.metadata.class_names == ("ash", "birch", "cedar")


def test_a_model_for_one_row_at_a_time(read: Read) -> None:
    chain = [node("Gemm", "x w1 b1", "z1"), node("Relu", "z1", "h"), *TAIL]
    assert read(model(chain, WEIGHTS, shape=(1, 4))).network.layer_sizes == (4, 5, 3)


def test_what_the_output_does_not_need_is_not_read(read: Read) -> None:
    chain = [
        node("Gemm", "x w1 b1", "z1"),
        node("Relu", "z1", "h"),
        *TAIL,
        node("TopK", "y k", "a b"),
    ]
    found = read(model(chain, WEIGHTS | {"k": np.array([1], np.int64)}, outputs=("y", "a")))
    assert found.network.layer_sizes == (4, 5, 3)
