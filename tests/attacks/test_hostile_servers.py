"""Whatever a server answers, the client returns a result that holds together or its own error."""

from collections.abc import Callable, Iterator
from concurrent import futures
from functools import cache
from itertools import count
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1.explanation_pb2 import ExplainResponse
from mlpserve_client import (
    BatchTooLargeError,
    Client,
    MlpserveError,
    OverloadedError,
    ServerError,
    _descriptions,
)
from tests.support.client import Driven

REF = model_pb2.ModelRef(name="mnist", version=1, digest="sha256:0")
ROWS = np.zeros((5, 2), np.uint8)
Answer = Callable[[bytes, grpc.ServicerContext], Any]


class Hostile(grpc.GenericRpcHandler):
    """A gRPC server that gives `answer` to every call but those of health."""

    def __init__(self) -> None:
        self.answer: Answer = lambda request, context: b""
        self.calls = 0
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[self])
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method.startswith("/grpc.health"):
            return None  # as of a server without it, which counts as healthy

        def behaviour(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls += 1
            answer = self.answer(request, context)
            return answer if isinstance(answer, bytes) else answer.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(behaviour)

    def close(self) -> None:
        self._server.stop(0).wait(5)


@pytest.fixture
def server() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.close()


@pytest.fixture(params=[Client, Driven])
def client(request: pytest.FixtureRequest, server: Hostile) -> Iterator[Client]:
    with request.param(server.target, timeout=10) as client:
        yield client


def refusing(code: grpc.StatusCode, *details: Any) -> Answer:
    status = status_pb2.Status(code=code.value[0], message="refused")
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)

    def answer(request: bytes, context: grpc.ServicerContext) -> Any:
        context.abort_with_status(rpc_status.to_status(status))

    return answer


def too_large(limit: str) -> Answer:
    info = error_details_pb2.ErrorInfo(
        reason="BATCH_TOO_LARGE", domain="mlpserve", metadata={"max_batch": limit}
    )
    return refusing(grpc.StatusCode.INVALID_ARGUMENT, info)


def batch(
    labels: list[int], shape: list[int], names: int = 2, value: float = 0.5, kind: Any = 0
) -> Answer:
    @cache  # made when it is asked for: three million names take a second
    def response() -> pb.BatchPredictResponse:
        data = np.full(10, value, "<f4").tobytes()
        return pb.BatchPredictResponse(
            labels=labels,
            probabilities=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=shape, data=data),
            model=REF,
            class_names=map(str, range(names)),
            output_kind=kind,
        )

    return lambda request, context: response()


@pytest.mark.parametrize("seconds", [-5, 86_401, 2**62])
@pytest.mark.parametrize("call", [Client.predict, Client.predict_batch])
def test_an_impossible_time_to_wait_is_none(
    server: Hostile, client: Client, call: Callable[..., Any], seconds: int
) -> None:
    delay = duration_pb2.Duration(seconds=seconds)
    server.answer = refusing(
        grpc.StatusCode.RESOURCE_EXHAUSTED, error_details_pb2.RetryInfo(retry_delay=delay)
    )
    with pytest.raises(OverloadedError) as caught:
        getattr(client, call.__name__)(ROWS)
    assert caught.value.retry_after is None
    assert server.calls == 1


@pytest.mark.parametrize("limit", ["9" * 5000, "-1", "x", "٣", "0"])
def test_a_limit_of_rows_that_is_no_number_is_none(
    server: Hostile, client: Client, limit: str
) -> None:
    server.answer = too_large(limit)
    with pytest.raises(BatchTooLargeError):
        client.predict_batch(ROWS)


def test_a_limit_that_is_one_row_less_each_time_ends(server: Hostile, client: Client) -> None:
    def answer(request: bytes, context: grpc.ServicerContext) -> Any:
        rows = pb.BatchPredictRequest.FromString(request).instances.shape[0]
        return too_large(str(rows - 1))(request, context)

    server.answer = answer
    with pytest.raises(BatchTooLargeError):
        list(client.predict_stream(np.zeros((4000, 2), np.uint8), batch_size=4000))


@pytest.mark.parametrize(
    "answer",
    [
        batch([0] * 5, [5, 2**40]),
        batch([0] * 5, [5, 2**40], names=0),
        batch([0] * 5, [5, -2]),
        batch([0] * 5, [10]),
        batch([0] * 5, [5, 2], names=3_000_000),
        batch([-1] * 5, [5, 2]),
        batch([2] * 5, [5, 2]),
        batch([2**31 - 1] * 5, [5, 2]),
        batch([0] * 6, [5, 2]),
        batch([0] * 5, [5, 2], value=float("nan")),
        batch([0] * 5, [5, 2], value=float("-inf")),
    ],
)
def test_a_batch_that_does_not_hold_together_is_refused(
    server: Hostile, client: Client, answer: Answer
) -> None:
    server.answer = answer
    with pytest.raises(ServerError):
        client.predict_batch(ROWS)
    with pytest.raises(ServerError):
        list(client.predict_stream(ROWS))


DISTRIBUTION, INDEPENDENT, VALUES, NEWER = 1, 2, 3, 99


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (DISTRIBUTION, 0.25, "sum to 0.5, not to 1"),
        (DISTRIBUTION, 0.51, "sum to 1.02, not to 1"),
        (DISTRIBUTION, -0.5, "of -0.5 to -0.5, expected from 0 to 1"),
        (INDEPENDENT, -0.01, "of -0.01 to -0.01, expected from 0 to 1"),
        (INDEPENDENT, 1.01, "of 1.01 to 1.01, expected from 0 to 1"),
        (VALUES, float("nan"), "not finite"),
        (NEWER, float("inf"), "not finite"),
    ],
)
def test_an_answer_that_is_not_what_the_server_says_is_refused(
    server: Hostile, client: Client, kind: Any, value: float, problem: str
) -> None:
    server.answer = batch([0] * 5, [5, 2], value=value, kind=kind)
    with pytest.raises(ServerError, match=problem):
        client.predict_batch(ROWS)
    alone = pb.PredictResponse(
        probabilities=[value] * 2, model=REF, class_names=["a", "b"], output_kind=kind
    )
    server.answer = lambda request, context: alone
    with pytest.raises(ServerError, match=problem):
        client.predict(ROWS[0])


@pytest.mark.parametrize(
    ("kind", "value", "name"),
    [
        (DISTRIBUTION, 0.5002, "distribution"),  # float32 rounds
        (INDEPENDENT, 1, "independent"),
        (VALUES, -1e30, "values"),
        (0, -7, "unknown"),  # a server that does not say it
        (NEWER, 7, "unknown"),
    ],
)
def test_an_answer_that_is_what_the_server_says_is_taken(
    server: Hostile, client: Client, kind: Any, value: float, name: str
) -> None:
    server.answer = batch([0] * 5, [5, 2], value=value, kind=kind)
    answers = client.predict_batch(ROWS)
    assert (answers.output_kind, answers[0].output_kind, answers[1:].output_kind) == (name,) * 3
    assert [answer.output_kind for answer in client.predict_stream(ROWS)] == [name] * 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_probabilities_that_are_none_are_refused(
    server: Hostile, client: Client, value: float
) -> None:
    response = pb.PredictResponse(probabilities=[value, 0], model=REF, class_names=["a", "b"])
    server.answer = lambda request, context: response
    with pytest.raises(ServerError, match="not finite"):
        client.predict(ROWS[0])


@pytest.mark.parametrize(
    "response",
    [
        pb.PredictResponse(label=2, probabilities=[0.5, 0.5], model=REF),
        pb.PredictResponse(label=-1, probabilities=[0.5, 0.5], model=REF),
        pb.PredictResponse(model=REF),
        pb.PredictResponse(probabilities=[0.5, 0.5], class_names=["a", "b"]),
        pb.PredictResponse(probabilities=[0.5, 0.5], model=REF, class_names=["a"] * 1_000_000),
        b"\xff" * 9,
    ],
)
def test_an_answer_that_does_not_hold_together_is_refused(
    server: Hostile, client: Client, response: Any
) -> None:
    server.answer = lambda request, context: response
    with pytest.raises(ServerError):
        client.predict(ROWS[0])


@pytest.mark.parametrize("call", ["predict_batch", "explain", "model", "models"])
def test_bytes_that_are_no_message_are_refused(server: Hostile, client: Client, call: str) -> None:
    server.answer = lambda request, context: b"\xff" * 9
    with pytest.raises(ServerError, match="INTERNAL"):
        getattr(client, call)(*([ROWS] if call in ("predict_batch", "explain") else []))


@pytest.mark.parametrize("label", [-1, 7])
def test_a_stream_ends_with_the_error_of_a_broken_answer(
    server: Hostile, client: Client, label: int
) -> None:
    def answer(request: bytes, context: grpc.ServicerContext) -> Any:
        first = not any(pb.BatchPredictRequest.FromString(request).instances.data)
        return batch([1 if first else label] * 5, [5, 2])(request, context)

    server.answer = answer
    stream = client.predict_stream(
        np.array([0, 9], np.uint8).repeat(10).reshape(10, 2), batch_size=5
    )
    assert [next(stream).label for _ in range(5)] == [1] * 5
    with pytest.raises(ServerError, match="labels from"):
        next(stream)


def test_every_refusal_is_one_of_the_clients_errors(server: Hostile, client: Client) -> None:
    for code in set(grpc.StatusCode) - {grpc.StatusCode.OK}:
        server.answer = refusing(code)
        with pytest.raises(MlpserveError):
            client.predict(ROWS[0], timeout=0.3)


@pytest.mark.parametrize(
    "changed",
    [
        {"input_maximum": float("nan")},
        {"input_maximum": -1},
        {"metrics": {"accuracy": float("nan")}},
        {"input_values": model_pb2.InputValues(high=float("inf"))},
        {"input_shape": [2**40]},
        {"input_shape": [-1, -1]},
        {"input_shape": [1] * 100},
    ],
)
def test_a_description_with_impossible_numbers_is_refused(
    server: Hostile, client: Client, changed: dict[str, Any]
) -> None:
    version = model_pb2.ModelVersion(**{"ref": REF} | changed)
    server.answer = lambda request, context: model_pb2.GetModelVersionResponse(
        model_version=version
    )
    with pytest.raises(ServerError, match="the server described"):
        client.model()


def why(
    shape: list[int], value: float = 0.5, labels: tuple[int, ...] = (1,), score: float = 1
) -> Answer:
    attributions = pb.Tensor(
        dtype=pb.DATA_TYPE_FLOAT32, shape=shape, data=np.full(2, value, "<f4").tobytes()
    )
    response = ExplainResponse(
        attributions=attributions, labels=labels, scores=[score], baseline_scores=[0], model=REF
    )
    return lambda request, context: response


@pytest.mark.parametrize(
    "answer",
    [
        why([1, 2], labels=()),
        why([1, 2], labels=(1, 2)),
        why([1, 2], labels=(-1,)),
        why([1, 2], score=float("nan")),
        why([1, 2], value=float("nan")),
        why([1, 2], value=float("inf")),
        why([2, 1]),
        why([1, 2**40]),
        why([1, -1, -2]),
        why([2]),
        why([]),
        why([1] * 80 + [2]),
        lambda request, context: ExplainResponse(),
    ],
)
def test_an_explanation_that_does_not_hold_together_is_refused(
    server: Hostile, client: Client, answer: Answer
) -> None:
    server.answer = answer
    with pytest.raises(ServerError):
        client.explain(ROWS[0])


def test_an_explanation_of_other_values_is_refused(server: Hostile, client: Client) -> None:
    server.answer = why([1, 2])
    with pytest.raises(ServerError, match="2 values, the instance has 3"):
        client.explain([0.0, 0.5, 1.0])


def test_an_explanation_of_another_label_is_refused(server: Hostile, client: Client) -> None:
    server.answer = why([1, 2], labels=(1,))
    with pytest.raises(ServerError, match="explained label 1, expected label 0"):
        client.explain(ROWS[0], label=0)


def test_a_list_that_fills_the_memory_is_refused(
    server: Hostile, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_descriptions, "_MAX_LISTED_BYTES", 10 << 20)
    numbers = count(2**60, -1)

    def answer(request: bytes, context: grpc.ServicerContext) -> Any:
        ref = model_pb2.ModelRef(version=next(numbers), digest="x" * 2**20)
        version = model_pb2.ModelVersion(ref=ref)
        return model_pb2.ListModelVersionsResponse(
            model_versions=[version], next_page_token=str(ref.version)
        )

    server.answer = answer
    with pytest.raises(ServerError, match="no end, or more than"):
        client.versions()


def test_a_list_without_an_end_is_refused(server: Hostile, client: Client) -> None:
    tokens = count(1)
    versions = [
        lambda number: [model_pb2.ModelVersion(ref=REF)],
        lambda number: [],
        lambda number: [model_pb2.ModelVersion(ref=model_pb2.ModelRef(version=number))],
    ]
    for page in versions:

        def answer(request: bytes, context: grpc.ServicerContext, page: Any = page) -> Any:
            number = next(tokens)
            return model_pb2.ListModelVersionsResponse(
                model_versions=page(number), next_page_token=str(number)
            )

        server.answer = answer
        with pytest.raises(MlpserveError, match="no end"):
            client.versions()
