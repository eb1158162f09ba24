"""Requests that differ in their values alone are answered as if each had been parsed."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.open_inference import inference_pb2 as oip
from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_server.dataplane.codec import BatchCodec, SingleCodec, parse
from mlpserve_server.dataplane.oip_codec import InferCodec
from mlpserve_server.dataplane.templates import Templates
from mlpserve_server.errors import InvalidInput
from tests.support.encoding import field

VALUES = st.one_of(
    st.binary(max_size=12), st.sampled_from([b"", b"\0", b"\0\0\0", b"\x1a\1\0", b"\x12\1\1\x1a\1"])
)
NAMES = st.sampled_from(["", "letters", "\x1a\1\0", "\0\0\0"])


def request(
    data: bytes,
    name: str = "",
    version: int = 0,
    receipt: bool = False,
    shape: Sequence[int] = (4,),
) -> bytes:
    selector = model_pb2.ModelSelector(name=name, version=version) if name or version else None
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=shape, data=data)
    return pb.PredictRequest(instance=tensor, model=selector, receipt=receipt).SerializeToString()


class Counting:
    """Templates that count what was parsed; a query is the data, and the message without them."""

    def __init__(self) -> None:
        self.parsed = 0
        self.templates = Templates(self._parse, lambda query, data: Query((data, query[1])))

    def _parse(self, encoded: bytes) -> "Query":
        self.parsed += 1
        return plain(encoded)

    def decode(self, encoded: bytes) -> int:
        """Return how often a request was parsed that was decoded as it is."""
        before = self.parsed
        assert self.templates.decode(encoded) == plain(encoded)
        return self.parsed - before


class Query(tuple[bytes, bytes]):
    """The values, and everything else."""

    @property
    def data(self) -> bytes:
        return self[0]


def plain(encoded: bytes) -> Query:
    message = parse(pb.PredictRequest, encoded)
    data = message.instance.data
    message.instance.data = b""
    return Query((data, message.SerializeToString(deterministic=True)))


def test_a_request_with_other_values_is_not_parsed() -> None:
    counting = Counting()
    assert counting.decode(request(b"1234", "letters")) == 1
    assert counting.decode(request(b"1234", "letters")) == 3  # with other values too, to be sure
    assert [counting.decode(request(d, "letters")) for d in (b"5678", b"\0\0\0\0")] == [0, 0]


@pytest.mark.parametrize(
    "encoded",
    [
        request(b""),
        request(b"\x12\1\1\x1a", "\x12\1\1\x1a"),
        request(b"\4\4\4\4", shape=[4, 4, 4, 4]),
        field(1, field(3, b"1234")) + field(1, field(3, b"1234")),
        field(99, b"1234") + request(b"1234"),
        field(2, field(3, b"1234")) + request(b"1234"),
    ],
    ids=["none", "as a name", "as a shape", "twice", "in an unknown field", "in a name before"],
)
def test_values_that_stand_twice_are_told_apart(encoded: bytes) -> None:
    counting = Counting()
    counting.decode(encoded)
    counting.decode(encoded)
    for data in (b"5678", b"\0\0\0\0", b"\4\4\4\4"):
        counting.decode(encoded.replace(b"1234", data))
        counting.decode(encoded.replace(b"1234", data, 1))
        counting.decode(data.join(encoded.rsplit(b"1234", 1)))


@given(
    st.lists(st.tuples(VALUES, NAMES, st.sampled_from([0, 3, 4]), st.booleans()), max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 40), st.integers(0, 255)), max_size=8),
)
def test_whatever_came_before_each_request_is_decoded_as_it_is(
    requests: list[tuple[bytes, str, int, bool]], changes: list[tuple[int, int, int]]
) -> None:
    encoded = [request(*one) for one in requests]
    for which, place, byte in changes:
        if which < len(encoded) and place < len(encoded[which]):
            damaged = bytearray(encoded[which])
            damaged[place] = byte
            encoded += [bytes(damaged), encoded[which]]
    templates = Counting().templates
    for one in encoded:
        assert outcome(templates.decode, one) == outcome(plain, one)


def outcome(decode: object, encoded: bytes) -> object:
    assert callable(decode)
    try:
        return decode(encoded)
    except InvalidInput as error:
        return str(error)


def test_requests_of_one_length_by_turns_are_not_learnt_at_each() -> None:
    counting = Counting()
    counting.decode(request(b"1234", version=3))
    parsed = sum(counting.decode(request(b"1234", version=3 + n % 2)) for n in range(160))
    assert 80 <= parsed <= 100
    assert sum(counting.decode(request(b"1234", version=9)) for n in range(160)) <= 20


def test_lengths_without_end_take_no_memory_without_end() -> None:
    counting = Counting()
    for length in range(1, 1000):
        counting.decode(request(bytes(length)))
    assert len(vars(counting.templates)["_by_length"]) <= 64


def test_the_second_request_of_a_length_is_learnt() -> None:
    counting = Counting()
    lengths = [70, 80_000, 70, 80_000, 80_000, 70, 90_000]
    assert [counting.decode(request(bytes(n))) for n in lengths] == [1, 1, 3, 3, 0, 0, 1]


def test_values_are_looked_for_by_their_first_bytes_alone() -> None:
    """To look for all of them, repeated as these are, took a quarter of a second for a megabyte."""
    counting = Counting()
    data = b"\x1a\1\0\0" * 40 + b"values"
    encoded = field(4, data[:80]) + request(data)  # in an unknown field
    assert [counting.decode(encoded) for _ in range(3)] == [1, 1, 1]


def test_a_request_that_makes_no_template_is_not_tried_each_time() -> None:
    counting = Counting()
    twice = field(1, field(3, b"1234")) + field(1, field(3, b"1234"))
    four = request(b"\4\4\4\4", shape=[4, 4, 4, 4])
    for encoded in (twice, four):
        assert sum(counting.decode(encoded) for _ in range(160)) <= 180


def test_a_very_long_request_is_never_learnt() -> None:
    counting = Counting()
    assert [counting.decode(request(bytes(1 << 20))) for _ in range(3)] == [1, 1, 1]


def test_a_request_that_is_long_beside_its_values_is_never_kept() -> None:
    counting = Counting()
    named = request(b"1234", "n" * 70_000)
    assert [counting.decode(named) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("rows", [2, 1_000])
def test_batches_are_decoded_as_they_are(rows: int) -> None:
    codec, rng = BatchCodec(), np.random.default_rng(0)
    for version, receipts in [(1, False)] * 4 + [(2, False), (1, True)] * 20:
        pixels = rng.integers(0, 256, (rows, 784), np.uint8)
        batch = pb.BatchPredictRequest(
            model=model_pb2.ModelSelector(name="letters", version=version),
            instances=pb.Tensor(
                dtype=pb.DATA_TYPE_UINT8, shape=pixels.shape, data=pixels.tobytes()
            ),
            receipts=receipts,
        )
        query = codec.decode(batch.SerializeToString())
        assert (query.selection.version, query.receipts) == (version, receipts)
        assert (query.data, [*query.shape]) == (pixels.tobytes(), [rows, 784])


@pytest.mark.parametrize("raw", [True, False])
def test_requests_of_the_open_protocol_are_decoded_as_they_are(raw: bool) -> None:
    codec = InferCodec()
    for values in ([0.5, 1], [0.25, 0], [-0.0, 1e-40], [0.5, 0.75]):
        for name in ("id-1", "id-2"):
            data = np.array(values, "<f4")
            contents = oip.InferTensorContents(fp32_contents=[] if raw else values)
            tensor = oip.ModelInferRequest.InferInputTensor(
                name="instances", datatype="FP32", shape=[2], contents=contents
            )
            request = oip.ModelInferRequest(
                model_name="letters",
                id=name,
                inputs=[tensor],
                raw_input_contents=[data.tobytes()] if raw else [],
            )
            query = codec.decode(request.SerializeToString())
            assert (query.id, query.raw, query.data) == (name, raw, data.tobytes())
            assert query.selection.name == "letters"


@pytest.mark.parametrize("first", [1, 7, 127, 128, 254])
@pytest.mark.parametrize("second", [0, 1, 127, 128, 253, 254, 255])
def test_integers_of_variable_length_are_never_taken_for_bytes(first: int, second: int) -> None:
    """Whatever two bytes stand in their place next, one that is too large is refused as ever."""
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="instances", datatype="UINT8", shape=[2],
        contents=oip.InferTensorContents(uint_contents=[first, second]),
    )  # fmt: skip
    request = oip.ModelInferRequest(model_name="a", inputs=[tensor]).SerializeToString()
    codec = InferCodec()
    values = codec.decode(request).data
    assert values == bytes([first, second])
    place = request.find(values)
    for others in (b"\xc8\xff", b"\xff\xff", b"\x07\x80", b"\x80\x02"):
        changed = request[:place] + others + request[place + 2 :]
        assert outcome(codec.decode, changed) == outcome(InferCodec().decode, changed)


def test_batches_alike_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(pixels: bytes) -> bytes:
        tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[len(pixels), 1], data=pixels)
        return pb.BatchPredictRequest(instances=tensor).SerializeToString()

    codec = BatchCodec()
    for _ in range(2):
        codec.decode(encoded(bytes(100_000)))
    monkeypatch.setattr("mlpserve_server.dataplane.codec.parse", None)
    pixels = b"\7" * 100_000
    assert codec.decode(encoded(pixels)).data == pixels


def test_the_codec_sees_what_selects_and_what_asks() -> None:
    codec = SingleCodec()
    for data in (b"1234", b"5678"):
        for version in (3, 4):
            for receipt in (False, True):
                query = codec.decode(request(data, "letters", version, receipt))
                found = query.data, query.selection.version, query.receipts
                assert found == (data, version, receipt)
