"""Small requests that would take much: memory, time, a connection for ever, or sense."""

import asyncio
import http.client
import json
import socket
import struct
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message

from mlpserve_client.testing import ModelServer
from mlpserve_web.errors import HttpError
from mlpserve_web.memory import AccountForMemory
from mlpserve_web.requests import Limits, body_reader
from tests.support.waiting import eventually
from tests.web.conftest import SHAPE, Answer, StartWeb, Web

MIB = 2**20
NUMBERS = ("9" * 18, "9" * 19, "9" * 300, "9" * 5000, "-1", "1e3", "%C2%B2", "%D9%A1")


def png(width: int, height: int) -> bytes:
    """A black picture of one bit a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    row = bytes(1 + -(-width // 8))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * height)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def resident(web: Web) -> int:
    """The most memory that the process had, in bytes."""
    lines = Path(f"/proc/{web.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_a_picture_of_many_pixels_is_refused_undecoded(web: Web) -> None:
    before = resident(web)
    answer = web.call("/api/classify", png(13_000, 13_000), Content_Type="image/png")
    assert answer.status == 400
    assert "13000×13000 pixels" in answer.json["error"]
    assert resident(web) - before < 64 * MIB


def test_a_picture_of_many_scans_is_refused_undecoded(web: Web) -> None:
    answer = web.call("/api/classify", b"\xff\xd8" + b"\xff\xda" * 101, Content_Type="image/jpeg")
    assert (answer.status, "101 scans" in answer.json["error"]) == (400, True)


def test_one_long_text_among_numbers_takes_no_memory_for_each_of_them(web: Web) -> None:
    values = ["x" * 10_000, *[0] * 9_999]  # which NumPy would make 400 MB of
    tensor = {"name": "instances", "datatype": "FP32", "shape": [10_000], "data": values}
    before = resident(web)
    answer = web.call("/v2/models/mnist/infer", {"inputs": [tensor]})
    assert (answer.status, "not numbers" in answer.json["error"]) == (400, True)
    assert resident(web) - before < 64 * MIB


def test_a_file_of_another_kind_than_pictures_have_is_refused(web: Web) -> None:
    answer = web.call("/api/classify", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert answer.status == 400
    assert "not an image" in answer.json["error"]


@pytest.mark.parametrize("part", [b"[],", b"{},", b'"aa",', b"[[]],"])
@pytest.mark.parametrize("path", ["/v2/models/mnist/infer", "/api/classify"])
def test_json_of_many_parts_is_refused_unparsed(web: Web, path: str, part: bytes) -> None:
    before = resident(web)
    many = b"[" + (part * (8 * MIB // len(part)))[:-1] + b"]"
    body = many
    if path.startswith("/v2"):
        head = b'{"inputs": [{"name": "instances", "datatype": "FP32", "shape": [1, 12], "data": '
        body = head + many + b"}]}"
    answer = web.call(path, body, Content_Type="application/json")
    assert answer.status in (400, 413)
    assert resident(web) - before < 64 * MIB


def test_json_of_more_numbers_than_are_parsed_at_once_is_refused(web: Web) -> None:
    before = resident(web)
    rows = 1_000_000
    head = (
        b'{"inputs": [{"name": "instances", "datatype": "UINT8", "shape": [%d, 12], "data": ['
        % rows
    )
    answer = web.call("/v2/models/mnist/infer", head + b"0," * (rows * 12 - 1) + b"0]}]}")
    assert answer.status == 413
    assert "binary data" in answer.json["error"]
    assert resident(web) - before < 100 * MIB


@pytest.mark.parametrize("depth", [255, 1000, 100_000])
@pytest.mark.parametrize("field", ["id", "inputs", "outputs", "parameters"])
def test_deeply_nested_json_is_refused(web: Web, field: str, depth: int) -> None:
    body = {"inputs": [{"name": "instances"}]} | {field: "NESTED"}
    nested = b'{"a":' * depth + b"0" + b"}" * depth
    answer = web.call(
        "/v2/models/mnist/infer", json.dumps(body).encode().replace(b'"NESTED"', nested)
    )
    assert (answer.status, list(answer.json)) == (400, ["error"])


def test_bodies_of_many_requests_share_the_memory(server: ModelServer, start_web: StartWeb) -> None:
    limits = ("--max-bytes", "200000", "--request-seconds", "100")
    web = start_web("--target", server.target, *limits)
    path = "/v2/models/mnist/infer"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n"
    with ExitStack() as halves:
        answers: list[Answer] = []

        def is_refused() -> bool:
            # The half is read beside the call: whichever needs the memory second is refused.
            half = halves.enter_context(socket.create_connection((web.host, web.port)))
            with suppress(ConnectionError):
                half.sendall(head.encode() + b" " * 250_000)
            answers.append(web.call(path, b" " * 150_000))
            return answers[-1].status == 503

        eventually(is_refused)
        refused = answers[-1]
        assert refused.headers["retry-after"] == "1"
        assert "memory" in refused.json["error"]
        assert web.call(path, b" " * 60_000).status == 400  # small ones find room
    eventually(lambda: web.call(path, b" " * 150_000).status == 400)
    # Finds room never; what the call before took is free a moment after its answer is here.
    eventually(lambda: web.call(path, b" " * 280_000).status == 413)


def test_others_are_answered_between_two_large_bodies() -> None:
    """What is done with a body, such as parsing it, stops the event loop."""
    read = body_reader(Limits(body_bytes=MIB, body_seconds=60))
    seen: list[str] = []

    def request(size: int) -> Request:
        async def receive() -> Message:
            return {"type": "http.request", "body": bytes(size)}

        found = Request({"type": "http", "headers": []}, receive)
        found.state.take = lambda size: None
        return found

    async def ask(name: str, size: int) -> None:
        await read(request(size))
        seen.append(name)

    async def run() -> None:
        large = [ask("large", MIB) for _ in range(5)]
        small = [ask("small", 10) for _ in range(2)]
        others = asyncio.gather(*large, *small)
        while not others.done():
            seen.append("turn")
            await asyncio.sleep(0)

    asyncio.run(run())
    assert seen.count("large") == 5
    assert "large large" not in " ".join(seen)
    assert seen.index("small") < seen.index("large")


def test_callers_that_leave_amid_a_body_are_no_fault(
    server: ModelServer, start_web: StartWeb
) -> None:
    web = start_web("--target", server.target)
    head = "POST /v2/models/mnist/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    for _ in range(3):
        with socket.create_connection((web.host, web.port), timeout=30) as connection:
            connection.sendall(head.encode())
        assert web.call("/v2").status == 200
    web.process.terminate()
    _, rest = web.process.communicate(timeout=30)
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["stopped"]


def test_an_answer_is_in_memory_until_it_is_read() -> None:
    sent: list[Any] = []

    async def app(scope: Any, _: Any, send: Any) -> None:
        scope["state"]["take"](150_000)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"answer"})

    async def run() -> None:
        is_read = asyncio.Event()

        async def slow(message: Any) -> None:
            if sent and sent[-1].get("body"):
                await is_read.wait()
            sent.append(message)

        accounting: Any = AccountForMemory(app, 100_000, 0)
        first = asyncio.create_task(accounting({"type": "http"}, None, slow))
        await asyncio.sleep(0)
        with pytest.raises(HttpError, match="memory"):
            await accounting({"type": "http"}, None, slow)
        is_read.set()
        await first
        await accounting({"type": "http"}, None, slow)

    asyncio.run(run())
    assert b"".join(part.get("body", b"") for part in sent) == b"answer" * 2


def test_a_caller_that_reads_no_answer_loses_its_connection(
    server: ModelServer, start_web: StartWeb
) -> None:
    web = start_web("--target", server.target, "--request-seconds", "0.5")
    rows = 4096
    data = [0] * (rows * SHAPE[0] * SHAPE[1])
    tensor = {"name": "instances", "datatype": "UINT8", "shape": [rows, *SHAPE], "data": data}
    body = json.dumps({"inputs": [tensor]}).encode()
    head = f"POST /v2/models/mnist/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.replace("Host: x", "Host: localhost").encode() + body
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect((web.host, web.port))
        silent.settimeout(0.5)

        def is_closed() -> bool:
            """Ask again and again, and read nothing."""
            try:
                silent.sendall(request)
            except TimeoutError:
                return False
            except OSError:
                return True
            return False

        eventually(is_closed)
    assert web.call("/v2").status == 200


@pytest.fixture(scope="module")
def page(server: ModelServer, start_web: StartWeb) -> Web:
    return start_web("--target", server.target, "--store", str(server.store))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/reports/{}"),
        ("GET", "/v2/models/mnist/versions/{}"),
        ("GET", "/v2/models/mnist/versions/{}/ready"),
        ("POST", "/api/classify?version={}"),
    ],
)
def test_a_number_that_is_no_version_is_the_callers_fault(
    page: Web, method: str, path: str, number: str
) -> None:
    answer = page.call(path.format(number), method=method)

    assert answer.status in (400, 404)
    assert list(answer.json) == ["error"]
    assert len(answer.body) < 1000


@pytest.mark.parametrize("number", NUMBERS)
def test_a_length_that_is_no_number_is_the_callers_fault(page: Web, number: str) -> None:
    answer = page.call("/v2/models/mnist/infer", b"{}", Inference_Header_Content_Length=number)

    assert (answer.status, list(answer.json)) == (400, ["error"])


@pytest.mark.parametrize(
    "token", [b"t\xc3\xb6ken", b"\xff", b"two words", b"t\ttab", b"t" * 8193, b"t" * 40_000]
)
def test_what_cannot_be_a_token_is_unauthenticated(page: Web, token: bytes) -> None:
    answer = with_token(page, token)

    assert (answer.status, list(answer.json)) == (401, ["error"])
    assert token.decode("latin-1") not in answer.json["error"]


def test_the_longest_token_reaches_the_servers(page: Web) -> None:
    assert with_token(page, b"t" * 8192).status == 200  # these want none


def with_token(web: Web, token: bytes) -> Answer:
    connection = http.client.HTTPConnection(web.host, web.port, timeout=30)
    try:
        connection.putrequest("GET", "/v2/models/mnist")
        connection.putheader("Authorization", b"Bearer " + token)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, dict(response.headers), response.read())
    finally:
        connection.close()
