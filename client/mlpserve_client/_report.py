"""The call Report, written once for both clients."""

from collections.abc import Iterable, Iterator

from mlpserve.v1 import feedback_pb2
from mlpserve_client import _answers, _messages
from mlpserve_client._calls import Calls
from mlpserve_client._errors import InvalidInputError
from mlpserve_client._results import Report, ReportResult
from mlpserve_client._transport import REPORT

# Of one request: the server's limit is 1,000 reports.
_MAX_REPORTS = 500
_MAX_BYTES = 4 << 20


async def report(
    calls: Calls, reports: Iterable[Report], timeout: float | None = None
) -> ReportResult:
    """Send reports, as many requests as it takes, one after the other."""
    messages = [await _message(calls, one, timeout) for one in reports]
    recorded = known = 0
    for part in _requests(messages):
        request = feedback_pb2.ReportRequest(reports=part)
        response = await calls.call_with_retry(REPORT, request, timeout)
        result = _answers.report_result(response, len(part))
        recorded, known = recorded + result.recorded, known + result.known
    return ReportResult(recorded, known)


async def _message(calls: Calls, report: Report, timeout: float | None) -> feedback_pb2.Report:
    if (report.class_name is None) == (report.right is None):
        raise InvalidInputError("a report says class_name or right: one of them, not both")
    message = feedback_pb2.Report(receipt=_receipt(report.receipt), note=_text(report.note, "note"))
    if report.class_name is not None:
        message.class_name = _text(report.class_name, "class_name")
    if report.right is not None:
        message.right = bool(report.right)
    if report.instance is not None:
        array = await calls.fitter(calls.selector(None, None, None), timeout).as_array(
            report.instance
        )
        _messages.encode_into(message.instance, array)
    return message


def _receipt(receipt: object) -> bytes:
    """Return a receipt as bytes; one in text is in hex."""
    try:
        data = bytes.fromhex(receipt) if isinstance(receipt, str) else receipt
    except ValueError as error:
        raise InvalidInputError("invalid receipt: expected bytes, or hex as text") from error
    if not isinstance(data, bytes) or not data:
        raise InvalidInputError(
            "invalid receipt: expected that of a prediction with receipt=True, as bytes or in hex"
        )
    return data


def _text(value: object, name: str) -> str:
    """Return text that protobuf can send; raise InvalidInputError for anything else."""
    try:
        if isinstance(value, str):
            return value.encode().decode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"invalid {name}: a lone surrogate cannot be sent") from error
    raise InvalidInputError(f"invalid {name} {value!r}: expected text")


def _requests(messages: list[feedback_pb2.Report]) -> Iterator[list[feedback_pb2.Report]]:
    """Split reports under the limits of a request; none are no request."""
    part: list[feedback_pb2.Report] = []
    size = 0
    for message in messages:
        size += message.ByteSize()
        if part and (len(part) >= _MAX_REPORTS or size > _MAX_BYTES):
            yield part
            part, size = [], message.ByteSize()
        part.append(message)
    if part:
        yield part
