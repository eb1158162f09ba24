"""What each thing that can be switched on costs: CPU time a call, beside a server without it.

    python benchmarks/costs.py [--only NAME ...] [--seconds 1] [--rounds 5]

A server for each configuration, all of one worker and all up at once; in each round every one
is measured for a moment, in turn, so that whatever else the machine does meets all alike. CPU
time is the server's alone, user and system, while h2load calls. A figure is the median over the
rounds of the difference to the first configuration in the same round, with the interval that holds
95 % of such medians. The second repeats the first, so its figure is the noise floor.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import trustme

from benchmarks.compare.contracts import Call, answer_of, own_contract
from benchmarks.compare.load import measure
from benchmarks.compare.processes import Running
from benchmarks.compare.report import machine
from benchmarks.compare.rounds import (
    EIGHT,
    SHAPES,
    SHARED,
    WARM_UP_SECONDS,
    running,
    wait_until_right,
)
from benchmarks.compare.servers import Server, mlpserve
from benchmarks.compare.workload import Workload, challenge, make
from benchmarks.compare_commits import interval
from mlpserve.v1 import prediction_pb2 as pb

RESULTS = Path(__file__).parent / "results" / "costs.json"
TOKEN = "the-second-of-two-tokens-is-the-one-shown"
CONNECTIONS = "a connection and a call"
# Connections of one measurement: a few milliseconds each, for both sides together.
CONNECTS = 100

# No more connections: their handshakes would count as calls, and h2load waits for ever for those
# that are not done at its end.
LOADS = (SHARED, EIGHT)

Prepare = Callable[[Call, Path], tuple[list[str], Call]]
Figures = dict[str, float]  # CPU microseconds a call, by load


@dataclass(frozen=True)
class Configuration:
    """What is switched on: `prepare` gets a folder, and gives flags and how to call then."""

    name: str
    prepare: Prepare


def _nothing(call: Call, folder: Path) -> tuple[list[str], Call]:
    return [], call


def _token(call: Call, folder: Path) -> tuple[list[str], Call]:
    path = folder / "tokens"
    path.touch(mode=0o600)
    path.write_text(f"the-first-of-two-tokens-that-is-not-shown\n{TOKEN}\n")
    return ["--token-file", str(path)], replace(call, token=TOKEN)


def _tls(call: Call, folder: Path) -> tuple[list[str], Call]:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    key, cert, ca = folder / "tls.key", folder / "tls.crt", folder / "ca.crt"
    key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(key)
    cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(ca)
    return ["--tls-cert", str(cert), "--tls-key", str(key)], replace(call, ca=ca)


def _both(call: Call, folder: Path) -> tuple[list[str], Call]:
    tls, call = _tls(call, folder)
    token, call = _token(call, folder)
    return [*tls, *token], call


def _flags(*flags: str) -> Prepare:
    return lambda call, folder: ([*flags], call)


_METRICS = ("--metrics-listen", "127.0.0.1:0")


def _shadow(call: Call, folder: Path) -> tuple[list[str], Call]:
    challenge(folder.parent / "store")
    return ["--shadow", "challenger"], call


def _keys(call: Call, folder: Path) -> tuple[list[str], Call]:
    path = folder / "keys"
    path.touch(mode=0o600)
    path.write_text("a-key-that-nobody-can-guess-in-a-benchmark\n")
    return ["--receipt-keys", str(path)], call


def _receipts(call: Call, folder: Path) -> tuple[list[str], Call]:
    flags, call = _keys(call, folder)
    asking = pb.PredictRequest(receipt=True).SerializeToString()
    return flags, replace(call, message=call.message + asking)  # end to end they are one message


# One line for each option.
CONFIGURATIONS = (
    Configuration("nothing", _nothing),
    Configuration("nothing, repeated", _nothing),
    Configuration("tokens, two in force", _token),
    Configuration("TLS", _tls),
    Configuration("TLS and tokens", _both),
    Configuration("metrics without drift", _flags(*_METRICS, "--drift-window", "0")),
    Configuration("metrics", _flags(*_METRICS)),
    Configuration("keys for receipts, none asked for", _keys),
    Configuration("a receipt with every answer", _receipts),
    Configuration("shadow", _shadow),
    Configuration("access log of 1 %", _flags("--access-log", "0.01")),
    Configuration("access log of every call", _flags("--access-log", "1")),
    Configuration("traces of 1 %", _flags("--traces", "0.01")),
    Configuration("traces of every call", _flags("--traces", "1")),
    Configuration(
        "metrics, access log and traces of 1 %",
        _flags(*_METRICS, "--access-log", "0.01", "--traces", "0.01"),
    ),
)


@dataclass
class Measured:
    """A server that runs, and its figures round by round."""

    name: str
    process: Running
    call: Call
    folder: Path
    rounds: list[Figures]

    def measure(self, seconds: float) -> None:
        """One round of every load."""
        figures = {
            name: measure(self.process, self.call, SHAPES[name], seconds, self.folder).cpu_us
            for name in LOADS
        }
        self.rounds.append({**figures, CONNECTIONS: self._connect()})

    def _connect(self) -> float:
        before = sum(self.process.cpu_seconds().values())
        for _ in range(CONNECTS):
            answer_of(self.call, self.process.port)
        return (sum(self.process.cpu_seconds().values()) - before) / CONNECTS * 1e6


def main() -> int:
    """Measure and print the table."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # the servers end, too
    chosen = [
        configuration
        for number, configuration in enumerate(CONFIGURATIONS)
        if number < 2 or any(part.lower() in configuration.name.lower() for part in options.only)
    ]
    with tempfile.TemporaryDirectory(prefix="costs-") as name, ExitStack() as stack:
        workload = make(Path(name))
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = stack.enter_context(_collector())
        servers = [_started(configuration, workload, stack) for configuration in chosen]
        for server in servers:
            server.measure(WARM_UP_SECONDS)
            server.rounds.clear()
        for number in range(1, options.rounds + 1):
            print(f"round {number} of {options.rounds}", file=sys.stderr)
            for server in servers:
                server.measure(options.seconds)
    settings = {"seconds": options.seconds, "rounds": options.rounds}
    print(json.dumps({**machine(), **settings}), end="\n\n")
    print(table(servers))
    figures = {server.name: server.rounds for server in servers}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(
        json.dumps({**machine(), **settings, "cpu_us": figures}, indent=1) + "\n"
    )
    return 0


@contextmanager
def _collector() -> Iterator[str]:
    """Takes spans and forgets them; gives its address."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    accept: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
    handlers = {"Export": accept}
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None)


def table(servers: Sequence[Measured]) -> str:
    """In Markdown: CPU microseconds a call, and what of it is more than with nothing on."""
    loads = list(servers[0].rounds[0])
    lines = [
        f"| CPU µs | {' | '.join(loads)} |",
        f"|---|{'---:|' * len(loads)}",
    ]
    for server in servers:
        cells = [_cell(server.rounds, servers[0].rounds, load) for load in loads]
        lines.append(f"| {server.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rounds: Sequence[Mapping[str, float]], first: Sequence[Figures], load: str) -> str:
    mine = median(figures[load] for figures in rounds)
    if rounds is first:
        return f"{mine:.1f}"
    more = [a[load] - b[load] for a, b in zip(rounds, first, strict=True)]
    share = median(m / b[load] for m, b in zip(more, first, strict=True))
    low, high = interval(more)
    return f"{mine:.1f} ({median(more):+.1f}, {low:+.1f} to {high:+.1f}; {share:+.1%})"


def _started(configuration: Configuration, workload: Workload, stack: ExitStack) -> Measured:
    folder = workload.folder / configuration.name.replace(" ", "-")
    folder.mkdir()
    plain = own_contract(workload)
    flags, call = configuration.prepare(plain.single, folder)
    find = partial(mlpserve, flags=" ".join(["--workers 1", *flags]))
    calls = plain._replace(single=call, batch=replace(plain.batch, token=call.token, ca=call.ca))
    server = Server(configuration.name, find, calls=lambda workload: calls)
    process = stack.enter_context(running(server, workload))
    wait_until_right(process, server, workload)
    return Measured(configuration.name, process, call, folder, [])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", default=[""], help="names that have one of these")
    parser.add_argument("--seconds", type=float, default=1, help="length of one measurement (1)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
