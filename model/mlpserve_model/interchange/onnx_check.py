"""The numbers of an imported network beside those that onnxruntime computes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.interchange.onnx_graph import GraphInput

__all__ = ["run"]

_OLDEST_OPSET = 7  # of which it has every operator
_QUIET = 4  # fatal errors alone; the others become exceptions


def run(model: Any, given: GraphInput, tensor: str, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return what onnxruntime computes for a tensor of the model: (rows, values).

    Only the nodes that the tensor depends on are run, all of which were understood before.

    Args:
        model: A ModelProto.
        given: Its input.
        tensor: The name of the tensor.
        inputs: (rows, values), in the scale that the model takes.

    Raises:
        UnsupportedModel: onnxruntime refuses the model.

    """
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            _needed(model, given, tensor).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        batch = given.batch or len(inputs)
        shaped = inputs.reshape(-1, batch, *given.shape).astype(given.dtype)
        answers = [np.asarray(session.run([tensor], {given.name: rows})[0]) for rows in shaped]
    # onnxruntime's exceptions have no common class but Exception.
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise UnsupportedModel(f"onnxruntime cannot run the model{_age(model)}: {text}") from error
    return np.concatenate([answer.reshape(batch, -1) for answer in answers]).astype(np.float64)


def _needed(model: Any, given: GraphInput, tensor: str) -> Any:
    """Return a model of the nodes alone that a tensor depends on."""
    needed, nodes = {tensor}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            nodes.append(node)
    graph = model.graph
    made = onnx.helper.make_graph(
        nodes[::-1],
        "imported",
        [value for value in graph.input if value.name == given.name],
        [_any_tensor(tensor)],
        initializer=[value for value in graph.initializer if value.name in needed],
    )
    opsets = _unique(model.opset_import)
    return onnx.helper.make_model(made, ir_version=model.ir_version, opset_imports=opsets)


def _age(model: Any) -> str:
    """Return what to do about a model that is too old for onnxruntime; empty for others."""
    version = min((opset.version for opset in model.opset_import if not opset.domain), default=0)
    old = 0 < version < _OLDEST_OPSET
    return f", of operator set {version} (export it for {_OLDEST_OPSET} or later)" if old else ""


def _any_tensor(name: str) -> Any:
    return onnx.helper.make_empty_tensor_value_info(name)


def _unique(opsets: Iterable[Any]) -> list[Any]:
    return list({opset.domain: opset for opset in opsets}.values())
