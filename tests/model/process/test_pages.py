"""Pages over HTTP: answered at once, whatever other callers do."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http import HTTPStatus

import pytest

from mlpserve_model.process import pages
from mlpserve_model.process.pages import _MAX_HEAD, MAX_CONNECTIONS, Page, PageServer

Ask = Callable[[bytes], bytes]


@pytest.fixture
def server() -> Iterator[PageServer]:
    render = {
        "/a": lambda accept: Page("text/plain", f"accepts {accept}".encode()),
        "/ill": lambda _: Page("text/plain", b"ill", HTTPStatus.SERVICE_UNAVAILABLE),
    }
    server = PageServer("127.0.0.1:0", "a-server", render)
    yield server
    server.close()


@pytest.fixture
def connect(server: PageServer) -> Iterator[Callable[[], socket.socket]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(
            socket.create_connection(("127.0.0.1", server.port), timeout=10)
        )


@pytest.fixture
def ask(connect: Callable[[], socket.socket]) -> Ask:
    """Send a request and give the answer."""

    def ask(request: bytes) -> bytes:
        caller = connect()
        caller.sendall(request)
        return b"".join(iter(lambda: caller.recv(65536), b""))

    return ask


def test_get_has_the_page_and_head_has_all_but_its_body(ask: Ask) -> None:
    got = ask(b"GET /a?x=1 HTTP/1.1\r\nAccept: all\r\n\r\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK")
    assert b"Server: a-server\r\n" in head
    assert b"Content-Length: 11" in head
    assert body == b"accepts all"
    asked = ask(b"HEAD /a HTTP/1.1\r\nAccept: all\r\n\r\n")
    without_date = [line for line in head.split(b"\r\n") if not line.startswith(b"Date")]
    assert [x for x in asked.strip().split(b"\r\n") if not x.startswith(b"Date")] == without_date


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /ill HTTP/1.1", 503), (b"GET / HTTP/1.1", 404), (b"GET /a/b HTTP/1.0", 404),
        (b"HEAD /metrics HTTP/1.1", 404), (b"POST /a HTTP/1.1", 501), (b"GET /a HTTP/9", 400),
        (b"nonsense", 400), (b"GET /" + b"a" * (_MAX_HEAD - 5), 431),
    ],
)  # fmt: skip
def test_everything_else_is_refused(ask: Ask, request_line: bytes, status: int) -> None:
    assert str(status).encode() in ask((request_line + b"\r\n\r\n")[:_MAX_HEAD])


def test_whoever_asks_is_answered_beside_any_number_of_half_requests(
    ask: Ask, connect: Callable[[], socket.socket]
) -> None:
    threads = threading.active_count()
    for number in range(5 * MAX_CONNECTIONS):
        connect().sendall(b"GET /a HTTP/1.1\r\n" if number % 2 else b"")
        assert threading.active_count() <= threads + 2 * MAX_CONNECTIONS
    assert b"200 OK" in ask(b"GET /a HTTP/1.1\r\n\r\n")


def test_a_connection_ends_in_time_though_it_goes_on_sending(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[[], socket.socket]
) -> None:
    monkeypatch.setattr(pages, "SECONDS", 0.3)
    caller = connect()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012  # until it ends
        while True:
            caller.sendall(b"X")
            caller.settimeout(0.05)
            try:
                if not caller.recv(1):
                    raise BrokenPipeError
            except TimeoutError:
                continue


def test_closing_ends_the_connections_that_are_open(connect: Callable[[], socket.socket]) -> None:
    server = PageServer("localhost:0", "a-server", {})
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as caller:
        caller.sendall(b"GET ")
        server.close()
        with suppress(ConnectionResetError):
            assert caller.recv(1) == b""


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "localhost:{}"])
def test_a_taken_port_is_an_error(server: PageServer, address: str) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        PageServer(address.format(server.port), "another", {})
