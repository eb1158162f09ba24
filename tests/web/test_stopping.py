"""A gateway that is told to stop before it listens for signals stops all the same."""

import signal
import socket

import pytest
import uvicorn

from mlpserve_web.cli import main


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_amid_the_start_is_not_lost(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = uvicorn.Server.run

    def interrupted(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        signal.raise_signal(number)
        run(server, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert main(["--listen", "127.0.0.1:0", "--target", "127.0.0.1:1"]) == 0
    finally:
        for changed, handler in before.items():
            signal.signal(changed, handler)
