"""One round with one server: start it, check its answers, measure it, stop it."""

import http.client
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
from threadpoolctl import threadpool_info

from benchmarks.compare.contracts import Call, answer_of
from benchmarks.compare.environments import ROOT
from benchmarks.compare.load import Load, LoadError, Shape, measure
from benchmarks.compare.processes import Running, StartError, free_port
from benchmarks.compare.servers import Server
from benchmarks.compare.workload import Workload

__all__ = [
    "BATCH",
    "EIGHT",
    "MANY",
    "ONE",
    "SHAPES",
    "SHARED",
    "Round",
    "WrongAnswer",
    "one_round",
    "running",
    "wait_until_right",
]

# One call in flight on each connection, or all on one; the latter needs HTTP/2.
ONE, EIGHT, MANY, SHARED = "1 connection", "8 connections", "64 connections", "64 on one"
SHAPES = {ONE: Shape(1, 1), EIGHT: Shape(8, 1), MANY: Shape(64, 1), SHARED: Shape(1, 64)}
BATCH = "batches"
WARM_UP = "warm-up"
START_SECONDS = 90.0
PROBE_SECONDS = 5.0
PAUSE_SECONDS = 0.02
WARM_UP_SECONDS = 0.5

# What a server that is not there yet, or not ready, may answer.
NOT_YET = (OSError, http.client.HTTPException, grpc.RpcError)


class WrongAnswer(Exception):
    """A server's probabilities are not those of the network."""


class Round(NamedTuple):
    """What one round with one server gave; a load under which calls failed gives no figures."""

    start_s: float
    memory_bytes: int
    loads: dict[str, Load]
    failures: dict[str, str]


def one_round(server: Server, workload: Workload, seconds: float) -> Round:
    """Raises StartError or WrongAnswer."""
    single, batch = server.calls(workload)
    loads: dict[str, Load] = {}
    failures: dict[str, str] = {}
    with running(server, workload) as process:
        start_s = wait_until_right(process, server, workload)
        for name, shape in {WARM_UP: SHAPES[EIGHT], **SHAPES, BATCH: SHAPES[ONE]}.items():
            call = batch if name == BATCH else single
            if shape.streams > 1 and not call.grpc:
                continue
            try:
                length = WARM_UP_SECONDS if name == WARM_UP else seconds
                loads[name] = measure(process, call, shape, length, workload.folder)
            except LoadError as error:
                failures[name] = str(error)
        memory = process.memory_bytes()
    loads.pop(WARM_UP, None)
    return Round(start_s, memory, loads, failures)


@contextmanager
def running(server: Server, workload: Workload) -> Iterator[Running]:
    """The server as processes that end with the block; raises Absent."""
    port = free_port()
    # Not named by its port, which another server may have had.
    folder = Path(tempfile.mkdtemp(prefix="server-", dir=workload.folder))
    variables = {
        "BENCH_PORT": str(port),
        "BENCH_SPARE_PORT": str(free_port()),
        "BENCH_WEIGHTS": str(workload.npz),
        "BENCH_FOLDER": str(folder),
        # The code beside this file, whatever is installed.
        "PYTHONPATH": ":".join(str(ROOT / part) for part in ("", "proto", "model", "server")),
        # As in mlpserve: calls run side by side, products need not.
        **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
        **_kernels_of_numpy(),
        # Nothing here reports to anyone, nor leaves a token in the user's home.
        "RAY_AUTH_MODE": "disabled",
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = server.find(workload, port).command
    process = Running(command, port, variables, folder)
    try:
        yield process
    finally:
        process.stop()


def wait_until_right(process: Running, server: Server, workload: Workload) -> float:
    """Seconds from the start to the first right answer; waits for batches, too.

    Raises StartError or WrongAnswer.
    """
    single, batch = server.calls(workload)
    answer = _first_answer(process, single)
    took = time.perf_counter() - process.started
    if server.computes:
        _check(single, answer, workload)
        _check(batch, _first_answer(process, batch), workload)
    return took


def _kernels_of_numpy() -> dict[str, str]:
    """The OpenBLAS kernels that NumPy chose here, for all servers.

    A distribution's OpenBLAS, which C++ is linked with, may be too old to know the processor, and
    would then compute batches with the kernels of one of 2004.
    """
    libraries = [one for one in threadpool_info() if one["internal_api"] == "openblas"]
    chosen = libraries[0]["architecture"] if libraries else None
    return {"OPENBLAS_CORETYPE": chosen} if chosen else {}


def _first_answer(process: Running, call: Call) -> bytes:
    while time.perf_counter() - process.started < START_SECONDS:
        process.check_alive()
        try:
            return answer_of(call, process.port, PROBE_SECONDS)
        except NOT_YET:
            time.sleep(PAUSE_SECONDS)
    raise StartError(f"no answer within {START_SECONDS:g} s: {process.last_words()}")


def _check(call: Call, answer: bytes, workload: Workload) -> None:
    if not workload.is_right(call.decode(answer)):
        raise WrongAnswer(f"{call.path} gives not the probabilities that NumPy computes")
