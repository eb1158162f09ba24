"""Forks and exits: an error or an end, never a hang."""

import os
import subprocess
import sys
import textwrap

import pytest

from mlpserve_client.testing import ModelServer

START = """
    import asyncio, os, sys
    from mlpserve_client import AsyncClient, Client, ClientClosedError

    image = [[0] * 28] * 28
    target = sys.argv[1]
"""


def run(target: str, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, so that this process never forks."""
    code = textwrap.dedent(START) + textwrap.dedent(program)
    # Python 3.12 warns of forking a process with threads: that is what is tested here.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@fork
@pytest.mark.parametrize(
    "use", ["inherited.predict(image)", "Client(target)", "AsyncClient(target)"]
)
def test_a_client_says_that_it_came_through_a_fork(server: ModelServer, use: str) -> None:
    done = run(
        server.target,
        f"""
        inherited = Client(target)
        inherited.predict(image)
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            print(status, inherited.predict(image).model.version)
        else:
            try:
                {use}
            except ClientClosedError as error:
                assert "fork" in str(error)
                inherited.close()
                os._exit(0)  # as multiprocessing ends its children
            os._exit(1)
        """,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("0 1\n", "", 0)


@fork
def test_a_process_may_fork_before_its_first_client(server: ModelServer) -> None:
    done = run(
        server.target,
        """
        child = os.fork()
        with Client(target) as client:
            client.predict(image)
        if child:
            print(os.waitpid(child, 0)[1])
        """,
    )

    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    "program",
    [
        "client = Client(target); client.predict(image)",
        "client = Client(target); stream = client.predict_stream([image] * 9); next(stream)",
        "Client(target).predict(image)",
        "client = AsyncClient(target); asyncio.run(client.predict(image))",
        "client = AsyncClient(target)",
        "client = Client(target); client.predict(image); raise SystemExit(0)",
    ],
)
def test_a_client_that_nobody_closes_does_not_disturb_the_exit(
    server: ModelServer, program: str
) -> None:
    done = run(server.target, program)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
