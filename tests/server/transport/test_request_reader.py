"""Which call is read next, and which one makes room for another."""

from typing import Any

from mlpserve_server.dataplane.admission import ByteLimiter
from mlpserve_server.transport.request_reader import RequestReader


class Call:
    """A call of a connection; its request comes when `send` is called."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self.held = 0
        self.started = 0.0
        self.send: Any = None

    def peer(self) -> str:
        return self._peer

    def receive(self, on_message: Any) -> None:
        self.send = lambda: on_message(self, b"request")


def calls_of(reader: RequestReader, peers: str) -> list[Any]:
    """Add a call of each of these connections."""
    calls: list[Any] = [Call(peer) for peer in peers]
    for call in calls:
        reader.add(call)
    return calls


def reader_of(at_once: int) -> RequestReader:
    return RequestReader(lambda *_: None, lambda *_: None, ByteLimiter(100), 1, at_once)


def test_a_connection_never_has_every_read() -> None:
    calls = calls_of(reader_of(3), "aaab")
    assert [call.send is not None for call in calls] == [True, True, False, True]


def test_the_connection_with_the_fewest_reads_goes_first() -> None:
    a1, a2, b1, a3, c1, b2 = calls_of(reader_of(3), "aabacb")
    assert c1.send is None
    b1.send()
    assert c1.send is not None
    c1.send()
    assert (a3.send, b2.send is not None) == (None, True)
    a1.send()
    assert a3.send is not None
    assert a2.send is not None


def test_a_lone_connection_reads_on() -> None:
    calls = calls_of(reader_of(1), "aa")
    calls[0].send()
    assert calls[1].send is not None


def test_the_last_call_of_the_connection_with_the_most_makes_room() -> None:
    reader = reader_of(1)
    *_, last = calls_of(reader, "baaa")
    newcomer: Any = Call("b")
    assert reader.make_room(newcomer) is last
    assert reader.make_room(Call("a")) is None  # type: ignore[arg-type]
    assert reader.unread == 2
