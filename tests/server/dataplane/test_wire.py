from collections.abc import Iterator

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.open_inference import inference_pb2 as oip
from mlpserve.v1 import feedback_pb2 as fb
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_server.dataplane.codec import parse
from mlpserve_server.dataplane.wire import MAX_STRUCTURE, has_too_much_structure
from mlpserve_server.errors import InvalidInput
from tests.support.encoding import field

MANY = MAX_STRUCTURE + 1
PIXELS = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[28, 28], data=bytes(784))


BOMBS: dict[str, tuple[type[Message], bytes]] = {
    "a shape of many": (pb.BatchPredictRequest, field(1, field(2, b"\1" * MANY))),
    "a shape not packed": (pb.BatchPredictRequest, field(1, b"\x10\1" * MANY)),
    "a tensor in many parts": (pb.BatchPredictRequest, field(1, b"") * MANY),
    "unknown numbers": (pb.PredictRequest, b"\x98\6\1" * MANY),
    "unknown bytes": (pb.PredictRequest, field(99, bytes(MANY))),
    "a group": (pb.PredictRequest, b"\x9b\6" + b"\x98\6\1" * MANY + b"\x9c\6"),
    "inputs": (oip.ModelInferRequest, field(5, b"") * MANY),
    "values of no length": (oip.ModelInferRequest, field(7, b"") * MANY),
    "texts of no length": (oip.ModelInferRequest, field(5, field(5, field(8, b"") * MANY))),
    "parameters": (
        oip.ModelInferRequest,
        b"".join(field(4, field(1, b"%06d" % n)) for n in range(20_000)),
    ),
    "integers where floats are expected": (
        oip.ModelInferRequest,
        field(5, field(5, field(3, b"\1" * MANY))),
    ),
    "reports": (fb.ReportRequest, field(1, b"") * MANY),
    "shapes of reports": (fb.ReportRequest, field(1, field(4, field(2, b"\1" * 999))) * 99),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_grows_when_it_is_parsed_is_refused(name: str) -> None:
    kind, encoded = BOMBS[name]
    assert has_too_much_structure(encoded, kind)
    with pytest.raises(InvalidInput, match="beside its texts and values"):
        parse(kind, encoded)


def test_the_largest_of_what_is_documented_is_parsed() -> None:
    for message in largest():
        assert parse(type(message), message.SerializeToString()) == message


def largest() -> Iterator[Message]:
    yield pb.BatchPredictRequest(
        instances=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[8192, 784], data=bytes(8192 * 3136))
    )
    yield oip.ModelInferRequest(
        model_name="mnist",
        inputs=[
            oip.ModelInferRequest.InferInputTensor(
                name="instances",
                datatype="UINT8",
                shape=[8192, 784],
                contents=oip.InferTensorContents(uint_contents=[255] * (8192 * 784)),
            )
        ],
    )
    yield oip.ModelInferRequest(
        model_name="mnist",
        inputs=[oip.ModelInferRequest.InferInputTensor(name="instances", shape=[999, 784])],
        raw_input_contents=[bytes(999 * 784)],
    )
    yield fb.ReportRequest(
        reports=[
            fb.Report(receipt=bytes(49), class_name="seven", note="\u2603" * 1000, instance=PIXELS)
        ]
        * 1000
    )


REPORTS = st.builds(
    fb.Report, receipt=st.binary(max_size=300), class_name=st.text(max_size=3), note=st.text()
)


@given(st.lists(REPORTS, max_size=12), st.integers(0, 200))
def test_torn_messages_are_refused_as_such(reports: list[fb.Report], cut: int) -> None:
    encoded = fb.ReportRequest(reports=reports).SerializeToString()
    assert not has_too_much_structure(encoded[:-cut], fb.ReportRequest)


def test_a_request_has_less_structure_than_a_thousand_reports() -> None:
    """To walk over 64 KiB of it took 37 ms, in which nobody else was answered."""
    parts = field(1, b"") * (MAX_STRUCTURE // 4)
    assert has_too_much_structure(parts, pb.PredictRequest)
    assert not has_too_much_structure(parts, fb.ReportRequest)


def test_integers_in_many_fields_are_as_many_as_in_one() -> None:
    """Of 32 MiB of them, which is allowed, parsing makes 128 MiB; each field had its own 32."""
    half = field(5, field(5, field(4, bytes(16 << 20))))
    assert not has_too_much_structure(half, oip.ModelInferRequest)
    assert has_too_much_structure(half * 3, oip.ModelInferRequest)


@given(st.binary(max_size=60))
def test_any_bytes_are_walked_to_their_end(data: bytes) -> None:
    """Nothing but a group is too much for so few bytes, and nothing raises."""
    if has_too_much_structure(data, oip.ModelInferRequest):
        assert any(byte & 7 in (3, 4, 6, 7) for byte in data)


@given(st.binary(max_size=60))
def test_padding_does_not_hide_what_is_behind_it(data: bytes) -> None:
    encoded = field(99, data) + field(1, field(2, b"\1" * MANY))
    assert has_too_much_structure(encoded, pb.BatchPredictRequest)
    with pytest.raises((InvalidInput, DecodeError)):
        parse(pb.BatchPredictRequest, encoded)
