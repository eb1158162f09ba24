"""ModelInfer of the Open Inference Protocol: its messages as queries and responses."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import prediction_pb2
from mlpserve_model import Manifest
from mlpserve_server.dataplane import codec, explanations, tensors
from mlpserve_server.dataplane.query import Computed, Selection
from mlpserve_server.dataplane.templates import Templates
from mlpserve_server.errors import InvalidInput, ManyRows

__all__ = [
    "DATATYPES",
    "DEFAULT_OUTPUTS",
    "FIELD",
    "INPUT",
    "OUTPUTS",
    "FewRowsCodec",
    "InferCodec",
    "InferQuery",
    "selection",
]

INPUT = "instances"
FIELD = "inputs[0]"
ATTRIBUTIONS = "attributions"
# A thousand calls may wait to share a product, and in 16 KiB are a thousand rows of four numbers.
_MAX_SHARED_ROWS = 16

_Response = inference_pb2.ModelInferResponse


class Datatype(NamedTuple):
    """An input's datatype: the dtype that it is, and the field of its typed contents."""

    dtype: int
    contents: str


class Output(NamedTuple):
    """A tensor that can be asked for.

    Attributes:
        datatype: the protocol's name of its dtype.
        contents: the field of its typed contents.
        values: gives its values out of what a model computed.
        shape: the shape of one row, given the number of classes and the shape of an input.
    """

    datatype: str
    contents: str
    values: Callable[[Computed], NDArray[Any]]
    shape: Callable[[int, tuple[int, ...]], tuple[int, ...]]


def _labels(computed: Computed) -> NDArray[Any]:
    labels: NDArray[np.int64] = computed.probabilities.argmax(axis=1).astype("<i8")
    return labels


def _probabilities(computed: Computed) -> NDArray[Any]:
    return computed.probabilities.astype("<f4", copy=False)


def _attributions(computed: Computed) -> NDArray[Any]:
    assert computed.attributions is not None  # since the query explains
    return computed.attributions.astype("<f4", copy=False)


DATATYPES = {
    "FP32": Datatype(prediction_pb2.DATA_TYPE_FLOAT32, "fp32_contents"),
    "UINT8": Datatype(prediction_pb2.DATA_TYPE_UINT8, "uint_contents"),
}
OUTPUTS = {
    "labels": Output("INT64", "int64_contents", _labels, lambda classes, _: ()),
    "probabilities": Output("FP32", "fp32_contents", _probabilities, lambda classes, _: (classes,)),
    ATTRIBUTIONS: Output("FP32", "fp32_contents", _attributions, lambda _, shape: shape),
}
# What a request gets that names none, and what the metadata have: clients ask for all of these.
DEFAULT_OUTPUTS = ("labels", "probabilities")


class InferQuery(NamedTuple):
    """A Query of the Open Inference Protocol.

    Attributes:
        id: what the caller calls the request; the response repeats it.
        raw: True if values travel as bytes, False if as lists of numbers; in both directions.
        outputs: the names of the tensors asked for, in order.
    """

    selection: Selection
    dtype: int
    shape: Sequence[int]
    data: bytes
    id: str
    raw: bool
    outputs: tuple[str, ...]

    @property
    def explains(self) -> bool:
        """Whether the attributions are asked for."""
        return ATTRIBUTIONS in self.outputs

    @property
    def receipts(self) -> bool:
        """False: the protocol has no receipts."""
        return False


class InferCodec:
    """ModelInferRequest and ModelInferResponse."""

    field = FIELD

    def __init__(self) -> None:
        self._templates = Templates(_query, _with_data)

    def decode(self, request: bytes) -> InferQuery:
        """Return the query in a ModelInferRequest."""
        return self._templates.decode(request)

    def check(self, query: InferQuery, manifest: Manifest, max_batch: int) -> None:
        """Raise InvalidInput unless the array is an instance or a batch."""
        maximum = explanations.max_rows(manifest, max_batch) if query.explains else max_batch
        tensors.check_rows(query, manifest, FIELD, maximum)

    def encode(
        self, computed: Computed, manifest: Manifest, queries: Sequence[InferQuery]
    ) -> list[bytes]:
        """Return a ModelInferResponse for each query."""
        responses, first = [], 0
        for query in queries:
            rows = tensors.row_count(query, manifest)
            responses.append(_response(computed.rows(first, first + rows), manifest, query))
            first += rows
        return responses


class FewRowsCodec(InferCodec):
    """ModelInfer for requests of few rows, which share a product with others."""

    def check(self, query: InferQuery, manifest: Manifest, max_batch: int) -> None:
        """Raise InvalidInput as for the others; ManyRows for more than may share a product."""
        super().check(query, manifest, max_batch)
        if tensors.row_count(query, manifest) > _MAX_SHARED_ROWS:
            raise ManyRows("so many rows are answered in steps")


def _query(request: bytes) -> InferQuery:
    message = codec.parse(inference_pb2.ModelInferRequest, request)
    if len(message.inputs) != 1:
        raise InvalidInput("inputs", f"{len(message.inputs)} inputs, expected one: {INPUT}")
    tensor = message.inputs[0]
    if tensor.name != INPUT:
        raise InvalidInput(
            f"{FIELD}.name", f"there is no input {tensor.name[:63]!r}, expected {INPUT}"
        )
    _refuse_parameters(tensor.parameters, FIELD)
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is None:
        raise InvalidInput(
            f"{FIELD}.datatype",
            f"datatype {tensor.datatype[:63]!r}, expected {' or '.join(DATATYPES)}",
        )
    raw = bool(message.raw_input_contents)
    chosen = selection(message.model_version, "model_version")
    return InferQuery(
        chosen._replace(name=message.model_name),
        datatype.dtype,
        tensors.dimensions(tensor.shape),
        _raw(message) if raw else _typed(tensor.contents, datatype),
        message.id,
        raw,
        _wanted(message) if message.outputs else DEFAULT_OUTPUTS,
    )


def _with_data(query: InferQuery, data: bytes) -> InferQuery:
    selected, dtype, shape, _, name, raw, outputs = query
    return InferQuery(selected, dtype, shape, data, name, raw, outputs)


def selection(version: str, field: str) -> Selection:
    """Return what a version of the protocol selects: a number, an alias, or nothing if empty."""
    if not version:
        return Selection()
    if version.isascii() and version.isdecimal() and len(version) < 19:
        return Selection(codec.numbered(int(version), field))
    return Selection(alias=version)


def _response(computed: Computed, manifest: Manifest, query: InferQuery) -> bytes:
    values = [OUTPUTS[name].values(computed) for name in query.outputs]
    input_shape = manifest.signature.input_shape
    shape = computed.probabilities.shape
    head = _head(manifest.model, manifest.version, shape, input_shape, query.outputs)
    if not query.raw:
        return _typed_response(head, query, values)
    # Messages put end to end are one message, by the definition of the encoding.
    raw = [array.tobytes() for array in values]
    return head + _Response(id=query.id, raw_output_contents=raw).SerializeToString()


@lru_cache(maxsize=256)  # a few sizes of batches, for versions that answer by turns
def _head(
    model: str,
    version: int,
    shape: tuple[int, int],
    input_shape: tuple[int, ...],
    outputs: tuple[str, ...],
) -> bytes:
    """Return a response without its id and values: what many share is encoded once."""
    rows, classes = shape
    described = [
        _Response.InferOutputTensor(
            name=name,
            datatype=OUTPUTS[name].datatype,
            shape=[rows, *OUTPUTS[name].shape(classes, input_shape)],
        )
        for name in outputs
    ]
    return _Response(
        model_name=model, model_version=str(version), outputs=described
    ).SerializeToString()


def _typed_response(head: bytes, query: InferQuery, values: Sequence[NDArray[Any]]) -> bytes:
    message = _Response.FromString(head)
    message.id = query.id
    for output, array in zip(message.outputs, values, strict=True):
        contents = getattr(output.contents, OUTPUTS[output.name].contents)
        contents.extend(array.ravel().tolist())
    return message.SerializeToString()


def _raw(message: inference_pb2.ModelInferRequest) -> bytes:
    if len(message.raw_input_contents) != 1:
        raise InvalidInput(
            "raw_input_contents",
            f"{len(message.raw_input_contents)} raw contents, expected 1: one for each input",
        )
    if message.inputs[0].contents.ByteSize():  # an empty one holds no value: MLServer sends it
        raise InvalidInput(
            f"{FIELD}.contents", "contents and raw_input_contents, expected one of them"
        )
    return message.raw_input_contents[0]


def _typed(contents: inference_pb2.InferTensorContents, datatype: Datatype) -> bytes:
    values = getattr(contents, datatype.contents)
    if datatype.dtype == prediction_pb2.DATA_TYPE_FLOAT32:
        return np.array(values, "<f4").tobytes()
    wide = np.array(values, np.uint32)
    if wide.size and (top := int(wide.max())) > 255:
        raise InvalidInput(
            f"{FIELD}.contents.{datatype.contents}", f"a value of {top}, expected UINT8: 0 to 255"
        )
    return wide.astype(np.uint8).tobytes()


def _wanted(message: inference_pb2.ModelInferRequest) -> tuple[str, ...]:
    """Return the outputs that were requested, in that order."""
    wanted: list[str] = []
    for place, output in enumerate(message.outputs):
        if output.name not in OUTPUTS or output.name in wanted:
            problem = "asked for twice" if output.name in wanted else "not there"
            raise InvalidInput(
                f"outputs[{place}].name",
                f"output {output.name[:63]!r} is {problem}: there are {', '.join(OUTPUTS)}",
            )
        _refuse_parameters(output.parameters, f"outputs[{place}]")
        wanted.append(output.name)
    return tuple(wanted)


def _refuse_parameters(parameters: Mapping[str, Any], field: str) -> None:
    """Raise InvalidInput for a parameter that changes where values lie or what they are.

    Others are ignored, as the protocol asks: clients send hints of their own, such as
    `binary_data_size` (KServe) and `content_type` (MLServer).
    """
    for name in parameters:
        if name.startswith("shared_memory_") or name == "classification":
            raise InvalidInput(
                f"{field}.parameters",
                f"parameter {name[:63]!r} is not supported: values are exchanged in the messages",
            )
