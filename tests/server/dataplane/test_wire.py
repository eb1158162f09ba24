from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mlpserve.v1 import feedback_pb2 as fb
from mlpserve_server.dataplane.wire import has_more_fields

REPORTS = st.builds(
    fb.Report, receipt=st.binary(max_size=300), class_name=st.text(max_size=3), note=st.text()
)


@given(st.lists(REPORTS, max_size=12), st.integers(0, 12))
def test_the_fields_of_a_message_are_counted(reports: list[fb.Report], maximum: int) -> None:
    encoded = fb.ReportRequest(reports=reports).SerializeToString()
    assert has_more_fields(encoded, maximum) == (len(reports) > maximum)


@given(st.binary(max_size=60))
def test_what_is_parsed_has_been_counted(data: bytes) -> None:
    if not has_more_fields(data, 3):
        try:
            parsed = fb.ReportRequest.FromString(data)
        except DecodeError:
            return
        assert len(parsed.reports) <= 3


def test_fields_of_every_wire_type_are_counted() -> None:
    fields = [b"\x10\xff\x01", b"\x11" + bytes(8), b"\x12\x02ab", b"\x15" + bytes(4)]
    for count in range(1, 5):
        data = b"".join(fields[:count])
        assert not has_more_fields(data, count)
        assert has_more_fields(data, count - 1)
        for cut in range(1, len(fields[count - 1])):
            assert has_more_fields(data[:-cut], count), "a torn field passed"
    assert has_more_fields(b"\x13\x14", 9), "a group passed"
