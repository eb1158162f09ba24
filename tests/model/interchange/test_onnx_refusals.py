"""ONNX models that cannot be imported: each is refused in little memory, with what to do."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from mlpserve_model import UnsupportedModel
from mlpserve_model.interchange.importing import ImportOptions, import_network
from tests.support.onnx_models import model, node, save

W, B = np.ones((4, 3), np.float32), np.zeros(3, np.float32)
WEIGHTS = {"w": W, "b": B}
GEMM = node("Gemm", "x w b", "y")
MAX_MEMORY = 32 * 2**20

Refusal = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path) -> Refusal:
    """The message with which an import is refused, in little memory."""

    def refusal(made: Any, **options: Any) -> str:
        path = save(made, tmp_path / "model.onnx")
        tracemalloc.start()
        try:
            with pytest.raises(UnsupportedModel) as caught:
                import_network(path, ImportOptions(**options))
            assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY
        finally:
            tracemalloc.stop()
        return str(caught.value)

    return refusal


NODES = {
    "Conv": [node("Conv", "x k", "y")],
    "LSTM": [node("LSTM", "x k k", "y", hidden_size=3)],
    "LayerNormalization": [GEMM, node("LayerNormalization", "y b", "z")],
    "HardSwish": [node("Gemm", "x w b", "h"), node("HardSwish", "h", "y")],
    "Softplus": [node("Gemm", "x w b", "h"), node("Softplus", "h", "y")],
    "Gelu": [node("Gemm", "x w b", "h"), node("Gelu", "h", "y", approximate="tanh")],
    "Elu": [node("Gemm", "x w b", "h"), node("Elu", "h", "y", alpha=0.5)],
    "If": [node("If", "x", "y", then_branch=helper.make_graph([], "t", [], []))],
    "FancyOperator": [node("FancyOperator", "x", "y", domain="com.example")],
}


@pytest.mark.parametrize("operator", NODES)
def test_a_node_that_is_not_understood_is_named(operator: str, refusal: Refusal) -> None:
    outputs = ("z",) if operator == "LayerNormalization" else ("y",)
    text = refusal(model(NODES[operator], WEIGHTS | {"k": W}, outputs=outputs, opset=20))
    assert text.startswith(f"model.onnx: node the_{outputs[0]} ({operator})")
    assert any(words in text for words in ("not supported", "that is none of", "not of ONNX"))


SEVERAL = [
    node("Gemm", "x w b", "h"), node("Sigmoid", "h", "p"),
    node("Binarizer", "p", "l", domain="ai.onnx.ml", threshold=0.5), node("Cast", "l", "y", to=7),
]  # fmt: skip


def test_several_labels_of_a_row_are_refused(refusal: Refusal) -> None:
    assert "an answer is one class" in refusal(model(SEVERAL, WEIGHTS, outputs=("p", "y")))


def test_one_of_several_labels_is_imported_where_the_probabilities_are_asked_for(
    tmp_path: Path,
) -> None:
    path = save(model(SEVERAL, WEIGHTS, outputs=("p", "y")), tmp_path / "model.onnx")
    found = import_network(path, ImportOptions(output_name="p"))
    assert found.network.activations == ("sigmoid",)


CHAINS = {
    "branches": ([node("Gemm", "x w4 b4", "h"), node("Add", "x h", "y")], "two branches"),
    "a product of two": ([node("MatMul", "x x", "y")], "a constant matrix"),
    "rows mixed": ([node("Gemm", "x w b", "y", transA=1)], "would mix the rows"),
    "training": (
        [node("Dropout", "x ratio yes", "h"), node("Gemm", "h w b", "y")], "training mode"
    ),
    "a softmax amid": (
        [node("Softmax", "x", "h"), node("Gemm", "h w b", "y")], "softmax before the last layer"
    ),
    "wrong sizes": ([node("Gemm", "x w3 b", "y")], r"weights of shape (3, 3) for rows of 4 values"),
    "a bias that differs by row": ([node("Gemm", "x w c", "y")], "does not fit rows"),
    "rounding": ([node("Cast", "x", "y", to=TensorProto.INT64)], "rounds"),
    "rows turned": ([node("Transpose", "x", "y", perm=[1, 0])], "axis of the rows"),
    "an axis amid": ([node("Softmax", "x", "y", axis=0)], "expected the classes"),
    "labels computed with": (
        [node("ArgMax", "x", "a", axis=1), node("Add", "a one", "y")], "computes with labels"
    ),
    "a division by inputs": ([node("Div", "ramp x", "y")], "divides by what"),
}  # fmt: skip
CONSTANTS = WEIGHTS | {
    "w4": np.eye(4, dtype=np.float32), "b4": np.zeros(4, np.float32), "w3": W[:3],
    "ratio": np.array(0.5, np.float32), "yes": np.array(True), "c": np.ones((2, 3), np.float32),
    "one": np.array(1, np.int64), "ramp": np.arange(4, dtype=np.float32),
}  # fmt: skip


@pytest.mark.parametrize("case", CHAINS)
def test_what_is_no_chain_of_layers_is_refused_with_the_node(case: str, refusal: Refusal) -> None:
    nodes, words = CHAINS[case]
    assert words in refusal(model(nodes, CONSTANTS))


def test_a_cycle_and_a_graph_out_of_order(refusal: Refusal) -> None:
    cycle = [node("Add", "x b2", "a"), node("Relu", "a", "b2"), node("Gemm", "b2 w b", "y")]
    text = refusal(model(cycle, WEIGHTS))
    assert "node the_a (Add) takes b2, which no node before it makes" in text
    assert "cycle" in text


def test_several_inputs_or_outputs_are_named(refusal: Refusal) -> None:
    made = model([GEMM, node("Relu", "y", "z")], WEIGHTS, outputs=("y", "z"))
    assert "y, z differ: say which with --output-name" in refusal(made)
    made.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    assert "expected one input, found 2: x, other" in refusal(made)


def test_an_old_operator_set_is_told_apart(refusal: Refusal) -> None:
    text = refusal(model([GEMM], WEIGHTS, opset=6))
    assert "onnxruntime cannot run the model, of operator set 6 (export it for 7 or later)" in text


def test_an_open_shape_is_asked_for(refusal: Refusal) -> None:
    assert "--input-shape" in refusal(model([GEMM], WEIGHTS, shape=("rows", "columns")))
    assert "--input-shape says (5,)" in refusal(model([GEMM], WEIGHTS), input_shape=(5,))


def test_an_input_that_is_no_number_is_named_by_its_type(refusal: Refusal) -> None:
    assert "is a tensor of string" in refusal(model([GEMM], WEIGHTS, kind=TensorProto.STRING))
    assert "is a tensor of bfloat16" in refusal(model([GEMM], WEIGHTS, kind=TensorProto.BFLOAT16))
    assert "is a tensor of 99" in refusal(model([GEMM], WEIGHTS, kind=99))
    made = model([GEMM], WEIGHTS)
    made.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    assert "is sequence" in refusal(made)


def test_sparse_weights_are_refused_as_such(refusal: Refusal) -> None:
    made = model([GEMM], {"b": B})
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    indices = helper.make_tensor("", TensorProto.INT64, [1], [5])
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, W.shape))
    assert "tensor w is sparse" in refusal(made)


def test_the_name_of_sparse_weights_has_to_be_text(tmp_path: Path) -> None:
    made = model([GEMM], WEIGHTS)
    values = helper.make_tensor("MARK", TensorProto.FLOAT, [1], [2.0])
    indices = helper.make_tensor("", TensorProto.INT64, [1], [5])
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, W.shape))
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString().replace(b"MARK", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(UnsupportedModel, match="not UTF-8"):
        import_network(path, ImportOptions())


def test_a_softmax_of_one_output_is_refused(refusal: Refusal) -> None:
    nodes = [node("Gemm", "x w b", "z"), node("Softmax", "z", "y", axis=-1)]
    made = model(nodes, {"w": W[:, :1], "b": B[:1]})
    assert "--output-activation sigmoid" in refusal(made)


def test_weights_that_are_not_finite(refusal: Refusal) -> None:
    for value in (np.nan, np.inf):
        w = W.copy()
        w[1, 2] = value
        assert "layer 1 has weights that are not finite" in refusal(model([GEMM], {"w": w, "b": B}))


def tensor(**fields: Any) -> Any:
    """A model whose weights claim what these fields say."""
    made = model([GEMM], WEIGHTS)
    found = next(t for t in made.graph.initializer if t.name == "w")
    for name, value in fields.items():
        getattr(found, name)[:] = value if isinstance(value, list) else [value]
    return made


def test_a_small_file_that_claims_gigabytes(refusal: Refusal) -> None:
    assert "claims 2,147,483,648 values" in refusal(tensor(dims=[2**31]))
    assert "claims 65,536 values" in refusal(tensor(dims=[2**8, 2**8]))
    assert "has the shape" in refusal(tensor(dims=[-1, 3]))
    grown = [node("Concat", "w w", "c0", axis=0)]
    grown += [node("Concat", f"c{i} c{i}", f"c{i + 1}", axis=0) for i in range(40)]
    text = refusal(model([*grown, node("MatMul", "x c40", "y")], {"w": np.ones((2**14, 2), "f4")}))
    assert "constant numbers" in text
    wide = [node("Add", "row column", "w"), node("MatMul", "x w", "y")]
    vector = np.ones((1, 2**16), np.float32)
    assert "constant numbers" in refusal(model(wide, {"row": vector, "column": vector.T}))


def test_much_beside_the_weights_is_not_parsed(refusal: Refusal) -> None:
    made = model([GEMM], WEIGHTS)
    made.graph.doc_string = "x" * 2**23
    assert "beside its weights" in refusal(made)
    made = model([GEMM] * 10_001, WEIGHTS)
    assert "10001 nodes, expected at most" in refusal(made)


def external(**entries: str) -> Any:
    made = model([GEMM], WEIGHTS)
    weights = made.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weights.external_data.add(key=key, value=value)
    return made


def test_external_data_come_from_beside_the_file_alone(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path.parent / "secret").write_bytes(W.tobytes())
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "data").write_bytes(W.tobytes())
    (tmp_path / "link").symlink_to(tmp_path.parent / "secret")
    for place in ("../secret", str(tmp_path.parent / "secret"), "inner/data", "", "..", "a\\b"):
        assert "expected a file in the folder of the model" in refusal(external(location=place))
    assert "symbolic link" in refusal(external(location="link"))
    assert "No such file" in refusal(external(location="missing"))
    assert "a folder" in refusal(external(location="inner"))


def test_external_data_are_bounded_by_their_file(refusal: Refusal, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(W.tobytes())
    path = save(external(location="data"), tmp_path / "model.onnx")
    np.testing.assert_array_equal(import_network(path, ImportOptions()).weights[0].w, W)
    for entries in ({"length": str(2**31)}, {"offset": "40", "length": "48"}, {"offset": "-1"}):
        assert "claims" in refusal(external(location="data", **entries))
    for length in ("many", "1e3", "+1", "1_0", "\u0661", "9" * 5000):
        text = refusal(external(location="data", length=length))
        assert "is not a place in it" in text
        assert len(text) < 300


def test_a_file_that_is_no_model(tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "other.onnx"
    whole = model([GEMM], WEIGHTS).SerializeToString()
    for data in (b"", b"hello", whole[: len(whole) // 2], whole[:-1], b"\x00" * 100):
        path.write_bytes(data)
        with pytest.raises(UnsupportedModel, match=r"^other\.onnx"):
            import_network(path, ImportOptions())


def test_values_that_onnxruntime_has_more_of(refusal: Refusal) -> None:
    """A constant that is the same everywhere counts as a number, whatever its shape."""
    ones = np.ones((1, 2, 3), np.float32)
    text = refusal(model([node("Gemm", "x w b", "h"), node("Add", "h ones", "y")],
                         WEIGHTS | {"ones": ones}))  # fmt: skip
    assert "onnxruntime" in text or "the model gives 6 values for a row" in text


def test_numbers_that_onnxruntime_computes_otherwise(
    refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator that means something else than here is found by what it computes."""
    from mlpserve_model.interchange import onnx_curves

    monkeypatch.setitem(onnx_curves.ELEMENTWISE, "Softsign", lambda _, x: np.maximum(x, 0))
    nodes = [node("Gemm", "x w b", "h"), node("Softsign", "h", "s"), node("Gemm", "s i b", "y")]
    text = refusal(model(nodes, WEIGHTS | {"i": np.eye(3, dtype=np.float32)}))
    assert "differs from what onnxruntime computes" in text
