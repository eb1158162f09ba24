"""gRPC by hand: HTTP/2 frames of our choice, for what no gRPC client would send."""

import select
import socket
import struct
import time
from collections import defaultdict
from types import TracebackType

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hpack import Encoder

__all__ = ["RawConnection", "frame", "rapid_reset", "send_and_wait"]

Header = tuple[str, str]


def rapid_reset(path: str, count: int) -> bytes:
    """Return the frames of calls that are reset as soon as they are open."""
    encoder = Encoder()
    encoder.header_table_size = 0  # so that the same block is right for every call
    block = encoder.encode([*_headers(path)], huffman=False)
    frames = []
    for stream in range(1, 2 * count, 2):
        frames += [_raw_frame(1, 4, stream, block), _raw_frame(3, 0, stream, struct.pack(">I", 8))]
    return b"".join(frames)


def _headers(path: str) -> list[Header]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def _raw_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def frame(message: bytes, length: int | None = None, compressed: bool = False) -> bytes:
    """A gRPC message with its prefix; `length` is what the prefix claims."""
    claimed = len(message) if length is None else length
    return struct.pack(">BI", compressed, claimed) + message


def send_and_wait(connection: "RawConnection", frames: bytes, seconds: float = 60) -> bool:
    """Send frames, and wait until the server has parsed them all; False if it has hung up.

    It answers a ping that follows them.
    """
    ping = b"parsed??"
    answer, received = _raw_frame(6, 1, 0, ping), bytearray()
    left, until = memoryview(frames + _raw_frame(6, 0, 0, ping)), time.monotonic() + seconds
    connection.socket.setblocking(False)
    while answer not in received:
        assert time.monotonic() < until, "the frames were not parsed"
        wanted = [connection.socket]
        readable, writable, _ = select.select(wanted, wanted if left else [], [], 0.1)
        try:
            if readable:
                data = connection.socket.recv(1 << 20)
                if not data:
                    return False
                received += data
            if writable:
                left = left[connection.socket.send(left) :]
        except OSError:
            return False
    return True


class RawConnection:
    """A plaintext HTTP/2 connection to a gRPC server at "host:port"."""

    def __init__(self, address: str, window: int | None = None) -> None:
        """Connect; `window` is how much of an answer the server may send unasked."""
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.http = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.headers: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self.data: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.ended: dict[int, str] = {}  # how: "ended", or the code of a reset
        self.terminated = False
        if window is not None:
            self.http.local_settings.initial_window_size = window
            self.http.local_settings.acknowledge()
        self.http.initiate_connection()
        self.flush()

    def open(self, path: str, *more: Header, end: bool = False) -> int:
        """Send the headers of a call and return its stream."""
        stream: int = self.http.get_next_available_stream_id()
        headers = [*_headers(path), *more]
        self.http.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    def send(self, stream: int, data: bytes, end: bool = False, seconds: float = 20) -> int:
        """Send as much as the server's windows allow within this time; returns how much."""
        until = time.monotonic() + seconds
        sent = 0
        while sent < len(data) and stream not in self.ended:
            room = min(
                self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size
            )
            if room <= 0:
                if time.monotonic() >= until:
                    return sent
                self.receive(0.05)
                continue
            part = data[sent : sent + room]
            self.http.send_data(stream, part, end_stream=end and sent + len(part) == len(data))
            sent += len(part)
            self.flush()
            if self.readable():
                self.receive(0)
        return sent

    def end(self, stream: int) -> None:
        """Say that nothing more is sent."""
        self.http.end_stream(stream)
        self.flush()

    def reset(self, stream: int) -> None:
        """Cancel the call."""
        self.http.reset_stream(stream, error_code=8)
        self.flush()

    def result(self, stream: int, seconds: float = 20) -> dict[str, str]:
        """Wait until the call has ended and return its headers and trailers."""
        until = time.monotonic() + seconds
        while stream not in self.ended and not self.terminated:
            assert time.monotonic() < until, "the call never ended"
            self.receive(0.1)
        return self.headers[stream]

    def status(self, stream: int, seconds: float = 20) -> int:
        """Wait until the call has ended and return its gRPC status."""
        return int(self.result(stream, seconds)["grpc-status"])

    def readable(self, seconds: float = 0) -> bool:
        """Whether there is something to receive, waited for this long."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def receive(self, seconds: float) -> None:
        """Take in what comes within this time."""
        if not self.readable(seconds):
            return
        data = self.socket.recv(1 << 20)
        if not data:
            self.terminated = True
            return
        for event in self.http.receive_data(data):
            self._take(event)
        self.flush()

    def flush(self) -> None:
        """Send what is waiting to be sent."""
        self.socket.sendall(self.http.data_to_send())

    def close(self) -> None:
        """Drop the connection."""
        self.socket.close()

    def __enter__(self) -> "RawConnection":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived() | TrailersReceived():
                self.headers[event.stream_id] |= {
                    str(name): str(value) for name, value in event.headers
                }
            case DataReceived():
                self.data[event.stream_id] += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self.ended[event.stream_id] = "ended"
            case StreamReset():
                self.ended.setdefault(event.stream_id, str(event.error_code))
            case ConnectionTerminated():
                self.terminated = True
