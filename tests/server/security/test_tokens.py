"""Bearer tokens: a call with a valid one is answered, all others get the same refusal."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import explanation_pb2, feedback_pb2, model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from tests.support.publishing import Publish
from tests.support.server import ANY_TRANSPORT, Refuse, Run, Serve, Stubs, each_method
from tests.support.waiting import eventually

TOKEN = "a-token-of-many-characters"
SECOND = "another-token-for-a-rotation"
PIXELS = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
ROWS = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[1, 12], data=bytes(12))
PREDICT = pb.PredictRequest(instance=PIXELS)
REQUESTS = {
    "/mlpserve.v1.PredictionService/Predict": PREDICT,
    "/mlpserve.v1.PredictionService/BatchPredict": pb.BatchPredictRequest(instances=ROWS),
    "/mlpserve.v1.ExplanationService/Explain": explanation_pb2.ExplainRequest(instances=ROWS),
    "/mlpserve.v1.ModelService/GetModelVersion": model_pb2.GetModelVersionRequest(),
    "/mlpserve.v1.ModelService/ListModelVersions": model_pb2.ListModelVersionsRequest(),
    "/mlpserve.v1.ModelService/ListModels": model_pb2.ListModelsRequest(),
}
SERVICES = [
    service
    for file in (
        pb.DESCRIPTOR,
        model_pb2.DESCRIPTOR,
        explanation_pb2.DESCRIPTOR,
        feedback_pb2.DESCRIPTOR,
        inference_pb2.DESCRIPTOR,
    )
    for service in file.services_by_name.values()
]
METHODS = [f"/{service.full_name}/{m.name}" for service in SERVICES for m in service.methods]
REFLECTION = reflection_pb2.ServerReflectionRequest(list_services="")

OK = (grpc.StatusCode.OK,)

Metadata = tuple[tuple[str, str | bytes], ...]
Write = Callable[..., Path]


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the token file as an operator does: beside it, and then into its place."""

    def write(*lines: str, mode: int = 0o600) -> Path:
        new = tmp_path / "new"
        new.write_text("".join(f"{line}\n" for line in lines))
        new.chmod(mode)
        return new.replace(tmp_path / "tokens")

    return write


@pytest.fixture
def stubs(publish: Publish, serve: Serve, write: Write) -> Stubs:
    """A server that wants TOKEN and serves version 1."""
    publish()
    stubs = serve(token_file=write("# of the tests", "", f"{TOKEN}  # of one caller"))
    eventually(stubs.serving)
    return stubs


def outcome(channel: grpc.Channel, method: str, metadata: Metadata | None) -> Any:
    """The code of a call, with all that an answer other than OK says."""
    call: Any = channel.unary_unary(method)
    request = REQUESTS.get(method)
    data = request.SerializeToString() if request else b""
    try:
        call(data, metadata=metadata, timeout=10)
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code(), failed.details(), tuple(failed.trailing_metadata())
    return OK


def reflected(channel: grpc.Channel, metadata: Metadata | None) -> Any:
    """The names of the services, or the failure."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    try:
        (answer,) = stub.ServerReflectionInfo(iter([REFLECTION]), metadata=metadata, timeout=10)
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code(), failed.details(), tuple(failed.trailing_metadata())
    return {service.name for service in answer.list_services_response.service}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_call_with_the_token_is_answered_whatever_its_method(stubs: Stubs, scheme: str) -> None:
    metadata = (("authorization", f"{scheme} {TOKEN}"), ("x-other", "1"))
    for method in REQUESTS:
        assert outcome(stubs.channel, method, metadata) == OK, method
    for method in METHODS:
        assert grpc.StatusCode.UNAUTHENTICATED not in outcome(stubs.channel, method, metadata)
    names = {service.full_name for service in SERVICES}
    open_or_tested_apart = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert reflected(stubs.channel, metadata) == names | open_or_tested_apart


def test_all_failures_get_one_answer_whatever_the_method_and_the_mistake(stubs: Stubs) -> None:
    wrong: list[Metadata | None] = [
        None,
        *map(bearer, ["", "x", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), f" {TOKEN}", SECOND]),
        (("authorization", TOKEN),),
        (("authorization", "Bearer"),),
        (("authorization", f"Basic {TOKEN}"),),
        (("authorization-bin", f"Bearer {TOKEN}".encode()),),
        (("token", TOKEN),),
        (("authorization", "Bearer x"), ("authorization", f"Bearer {TOKEN}")),
    ]
    methods = [*METHODS, "/mlpserve.v1.PredictionService/Nothing", "/nobody.Knows/It"]
    answers = {outcome(stubs.channel, method, given) for method in methods for given in wrong}
    answers |= {reflected(stubs.channel, given) for given in wrong}
    assert len(answers) == 1
    code, details, _ = answers.pop()
    assert code == grpc.StatusCode.UNAUTHENTICATED
    assert details == "a valid token is expected in the metadata: authorization: Bearer TOKEN"


def test_a_refusal_says_why_to_programs_too(stubs: Stubs, refusal: Refuse) -> None:
    refused = refusal(stubs.prediction.Predict, PREDICT)
    assert (refused.code, refused.info.reason, refused.info.domain) == (
        grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "mlpserve",
    )  # fmt: skip


def test_health_answers_without_a_token_for_probes_and_balancers_have_none(stubs: Stubs) -> None:
    assert stubs.serving("")
    assert stubs.serving()
    watch = stubs.health.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert next(iter(watch)).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


@each_method(*METHODS, "/nobody.Knows/It")
def test_a_refusal_waits_for_no_request_and_keeps_nobody_else_waiting(
    stubs: Stubs, method: str
) -> None:
    go = threading.Event()

    def nothing() -> Iterator[bytes]:
        go.wait(60)
        yield from ()

    start: Any = stubs.channel.stream_unary(method)
    calls = [start.future(nothing(), timeout=30) for _ in range(50)]
    assert {call.code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
    assert stubs.prediction.Predict(PREDICT, metadata=bearer(TOKEN), timeout=10).model.version == 1
    go.set()


def test_without_a_token_file_nobody_is_asked(publish: Publish, serve: Serve) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)
    assert {outcome(stubs.channel, method, None) for method in REQUESTS} == {OK}


def test_reflection_can_be_switched_off(publish: Publish, serve: Serve) -> None:
    publish()
    stubs = serve(reflection="off")
    eventually(stubs.serving)
    assert reflected(stubs.channel, None)[0] == grpc.StatusCode.UNIMPLEMENTED
    assert {outcome(stubs.channel, method, None) for method in REQUESTS} == {OK}


def test_metadata_beyond_the_limit_is_refused_and_below_it_never(stubs: Stubs) -> None:
    method = "/mlpserve.v1.PredictionService/Predict"
    below = (*bearer(TOKEN), ("x-trace", "x" * 14_000))
    for _ in range(20):
        assert outcome(stubs.channel, method, below) == OK
    above = (*bearer(TOKEN), ("x-trace", "x" * 17_000))
    for _ in range(20):
        assert outcome(stubs.channel, method, above)[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert outcome(stubs.channel, method, bearer(TOKEN)) == OK


class Caller:
    """Calls without a pause, with whatever token it is told; keeps what was not answered."""

    def __init__(self, address: str, token: str) -> None:
        self.token = token
        self.answered = 0
        self.failed: list[Any] = []
        self._done = threading.Event()
        self._address = address
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            while not self._done.is_set():
                for method in REQUESTS:
                    result = outcome(channel, method, bearer(self.token))
                    if result == OK:
                        self.answered += 1
                    else:
                        self.failed.append(result)

    def end(self) -> None:
        self._done.set()
        self._thread.join()


def in_force(caplog: pytest.LogCaptureFixture, text: str = "credentials in force") -> int:
    return sum(record.getMessage() == text for record in caplog.records)


def test_a_rotation_with_overlap_fails_no_call_and_ends_the_old_token(
    stubs: Stubs, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    method = "/mlpserve.v1.PredictionService/Predict"
    caller = Caller(stubs.address, TOKEN)

    def goes_on() -> None:
        """Wait until every method has been answered again, twice."""
        enough = caller.answered + 2 * len(REQUESTS)
        eventually(lambda: caller.answered > enough or bool(caller.failed))

    try:
        goes_on()
        assert outcome(stubs.channel, method, bearer(SECOND)) != OK
        write(TOKEN, SECOND)  # both
        eventually(lambda: outcome(stubs.channel, method, bearer(SECOND)) == OK)
        goes_on()
        caller.token = SECOND  # callers change over
        goes_on()
        write(SECOND)  # the old one ends
        eventually(lambda: outcome(stubs.channel, method, bearer(TOKEN)) != OK)
        goes_on()
    finally:
        caller.end()
    assert caller.failed == []
    assert in_force(caplog) == 2


@ANY_TRANSPORT  # what follows the file knows of none
def test_each_of_two_workers_follows_the_token_file(
    publish: Publish, run: Run, write: Write
) -> None:
    publish()
    path = write(TOKEN)
    server = run("--workers", "2", "--token-file", str(path))
    address = server.event("listening")["address"]
    for _ in range(2):
        server.event("serving")

    def answers(token: str) -> set[Any]:
        """What twenty new connections are told, which both workers share."""
        codes = set()
        for _ in range(20):
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(address, options) as channel:
                codes.add(outcome(channel, next(iter(REQUESTS)), bearer(token))[0])
        return codes

    ok, refused = {OK[0]}, {grpc.StatusCode.UNAUTHENTICATED}
    assert (answers(TOKEN), answers(SECOND)) == (ok, refused)
    write(TOKEN, SECOND)
    assert answers(TOKEN) == ok, "whatever moment the workers look at the file"
    eventually(lambda: answers(SECOND) == ok)
    write(SECOND)
    assert answers(SECOND) == ok
    eventually(lambda: answers(TOKEN) == refused)


@pytest.mark.parametrize("damage", ["emptied", "removed", "open", "cut"])
def test_a_file_broken_later_keeps_the_old_tokens_and_is_logged_once(
    stubs: Stubs, write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    caplog.set_level(logging.INFO)
    method = "/mlpserve.v1.PredictionService/Predict"
    refused = "new credentials refused, the old ones stay"
    if damage == "removed":
        (tmp_path / "tokens").unlink()
    elif damage == "open":
        write(SECOND, mode=0o644)
    else:
        write(*({"emptied": [], "cut": [SECOND, SECOND[:5]]}[damage]))
    eventually(lambda: in_force(caplog, refused) == 1)
    time.sleep(0.3)  # fifteen looks
    assert in_force(caplog, refused) == 1
    assert outcome(stubs.channel, method, bearer(TOKEN)) == OK
    assert outcome(stubs.channel, method, bearer(SECOND)) != OK
    write(SECOND)
    eventually(lambda: outcome(stubs.channel, method, bearer(SECOND)) == OK)
    assert outcome(stubs.channel, method, bearer(TOKEN)) != OK
    assert SECOND[:5] not in caplog.text


def test_a_secret_mounted_as_kubernetes_does_is_followed(
    publish: Publish, serve: Serve, tmp_path: Path
) -> None:
    """The file is a link into a link to a folder, which is what changes."""
    for name, token in (("first", TOKEN), ("second", SECOND)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens").write_text(token)
        (tmp_path / name / "tokens").chmod(0o440)
    (tmp_path / "data").symlink_to("first")
    (tmp_path / "tokens").symlink_to("data/tokens")
    publish()
    stubs = serve(token_file=tmp_path / "tokens")
    eventually(stubs.serving)
    method = "/mlpserve.v1.PredictionService/Predict"
    assert outcome(stubs.channel, method, bearer(TOKEN)) == OK
    (tmp_path / "next").symlink_to("second")
    (tmp_path / "next").replace(tmp_path / "data")
    eventually(lambda: outcome(stubs.channel, method, bearer(SECOND)) == OK)
    assert outcome(stubs.channel, method, bearer(TOKEN)) != OK


@ANY_TRANSPORT
def test_a_server_whose_token_file_is_empty_ends_with_1_and_says_why(
    run: Run, write: Write
) -> None:
    server = run("--token-file", str(write("# none yet")))
    assert "has no token" in server.event("cannot start")["reason"]
    assert server.process.wait(timeout=20) == 1


@ANY_TRANSPORT
def test_two_workers_that_cannot_read_their_tokens_end_the_server_with_1(run: Run) -> None:
    server = run("--token-file", "/nonexistent", "--workers", "2")
    assert "cannot read /nonexistent" in server.event("cannot start")["reason"]
    assert server.process.wait(timeout=20) == 1
