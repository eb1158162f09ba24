"""What a call costs: mlpserve beside C++ gRPC and the model servers that people use.

    python benchmarks/serving.py [--install] [--quick] [--only NAME ...]

The same 784-128-10 float32 weights in every server, its answers checked against NumPy before it
is measured, by h2load over loopback. In each round every server is started, measured and
stopped, one after the other; the figures are medians over the rounds. The load runs on the same
cores as the server, so throughput and latency are those of both together: CPU time a call, of
the server's whole process tree, compares best. Servers that are not here are named, with the
reason. `--install` makes an environment for each peer in the user's cache folder, once.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc

from benchmarks.compare.contracts import own_contract
from benchmarks.compare.environments import Absent, install
from benchmarks.compare.k6 import check_under_load
from benchmarks.compare.load import check_generator
from benchmarks.compare.numpy_alone import numpy_alone
from benchmarks.compare.processes import StartError
from benchmarks.compare.report import Result, as_json, machine, table
from benchmarks.compare.rounds import WrongAnswer, one_round, running, wait_until_right
from benchmarks.compare.servers import SERVERS, Server
from benchmarks.compare.workload import Workload, make

RESULTS = Path(__file__).parent / "results" / "serving.json"

# A server with such trouble is reported with it, and the others go on.
TROUBLE = (Absent, StartError, WrongAnswer, OSError, HTTPException, grpc.RpcError)
K6_TROUBLE = (*TROUBLE, subprocess.SubprocessError)


def main() -> int:
    options = _options()
    servers = _chosen(options)
    if options.install:
        _install(servers)
    try:
        generator = check_generator()
    except Absent as reason:
        print(f"nothing measured: {reason}", file=sys.stderr)
        return 1
    settings = {"seconds": options.seconds, "rounds": options.rounds, "generator": generator}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        workload = make(Path(folder))
        results = _measure(servers, workload, options.seconds, options.rounds)
        alone = numpy_alone(workload, options.seconds)
        if not options.quick:
            _second_opinion(servers, results, workload)
    print(json.dumps({**machine(), **settings}), end="\n\n")
    print(table(results, alone))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(results, alone, settings), indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--install", action="store_true", help="make the peers' environments")
    parser.add_argument("--quick", action="store_true", help="no peers but C++, short and rough")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="servers whose names have one of these"
    )
    parser.add_argument("--seconds", type=float, help="length of one measurement (3; quick: 0.8)")
    parser.add_argument("--rounds", type=int, help="how often each is measured (3; quick: 2)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    options = parser.parse_args()
    options.seconds = options.seconds or (0.8 if options.quick else 3)
    options.rounds = options.rounds or (2 if options.quick else 3)
    return options


def _chosen(options: argparse.Namespace) -> list[Server]:
    wanted = [part.lower() for part in options.only]
    return [
        server
        for server in SERVERS
        if (server.quick or not options.quick)
        and any(part in server.name.lower() for part in wanted)
    ]


def _install(servers: Sequence[Server]) -> None:
    for name in ["k6", *(server.environment for server in servers if server.environment)]:
        _progress(f"installing {name}")
        try:
            install(name)
        except Absent as reason:
            _progress(f"{name}: {reason}")


def _measure(
    servers: Sequence[Server], workload: Workload, seconds: float, rounds: int
) -> list[Result]:
    results = [Result(server.name) for server in servers]
    for number in range(1, rounds + 1):
        for server, result in zip(servers, results, strict=True):
            # What failed once fails again, after a long wait.
            if not result.trouble:
                _progress(f"round {number} of {rounds}: {server.name}")
                _add_round(server, result, workload, seconds)
    return results


def _add_round(server: Server, result: Result, workload: Workload, seconds: float) -> None:
    try:
        here = server.find(workload, 0)
        result.version, result.installed_bytes = here.version, here.installed_bytes
        result.rounds.append(one_round(server, workload, seconds))
    except TROUBLE as error:
        result.trouble = f"{type(error).__name__}: {error}"
        _progress(f"{server.name}: {result.trouble}")


def _second_opinion(
    servers: Sequence[Server], results: Sequence[Result], workload: Workload
) -> None:
    """k6 sees each answer's status and label: of the servers that k6's script can ask."""
    for server, result in zip(servers, results, strict=True):
        if server.calls is own_contract and server.computes and result.rounds:
            try:
                with running(server, workload) as process:
                    wait_until_right(process, server, workload)
                    result.k6 = check_under_load(process, workload)
            except K6_TROUBLE as error:
                result.k6_trouble = f"{type(error).__name__}: {error}"


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
