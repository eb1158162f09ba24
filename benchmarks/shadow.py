"""Latency with and without a shadow, side by side, and that it has work all the while.

    python benchmarks/shadow.py [--seconds 2] [--rounds 7]

Servers of one worker, all up at once: one without a shadow, one more without, whose difference is
what the figures cannot tell apart, one with a challenger at the default rate and one with ten
times as much. Each is measured in turn, round by round. Times are those that h2load sees, the
rows those of the server's metrics.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from urllib.request import urlopen

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.compare.contracts import Call, own_contract
from benchmarks.compare.load import Load, measure
from benchmarks.compare.processes import Running, free_port
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

RESULTS = Path(__file__).parent / "results" / "shadow.json"
SERVERS = {
    "no shadow": "",
    "no shadow, repeated": "",
    "shadow, 100 rows/s": "--shadow challenger",
    "shadow, 1,000 rows/s": "--shadow challenger --shadow-rows 1000",
}
LOADS = (EIGHT, SHARED)


@dataclass
class Measured:
    """A server that runs, and what it gave under each load, round by round."""

    name: str
    process: Running
    call: Call
    folder: Path
    metrics: str
    rounds: list[dict[str, Load]] = field(default_factory=list)

    def measure(self, seconds: float) -> None:
        """One round."""
        self.rounds.append(
            {
                load: measure(self.process, self.call, SHAPES[load], seconds, self.folder)
                for load in LOADS
            }
        )

    def shadowed(self) -> tuple[float, float]:
        """Rows that were compared, and rows that were dropped, so far."""
        with urlopen(self.metrics) as page:
            families = text_string_to_metric_families(page.read().decode())
        samples = [sample for family in families for sample in family.samples]
        compared, dropped = (
            sum(sample.value for sample in samples if sample.name == name)
            for name in ("mlpserve_shadow_rows_total", "mlpserve_shadow_dropped_rows_total")
        )
        return compared, dropped


def main() -> int:
    """Measure and print the table."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # the servers end, too
    with tempfile.TemporaryDirectory(prefix="shadow-") as name, ExitStack() as stack:
        workload = make(Path(name))
        challenge(workload.store)
        servers = [_started(name, flags, workload, stack) for name, flags in SERVERS.items()]
        for server in servers:
            server.measure(WARM_UP_SECONDS)
            server.rounds.clear()
        before = [server.shadowed() for server in servers]
        for number in range(1, options.rounds + 1):
            print(f"round {number} of {options.rounds}", file=sys.stderr)
            for server in servers:
                server.measure(options.seconds)
        rows = [
            tuple(int(b - a) for a, b in zip(was, server.shadowed(), strict=True))
            for was, server in zip(before, servers, strict=True)
        ]
    settings = {**machine(), "seconds": options.seconds, "rounds": options.rounds}
    print(json.dumps(settings), end="\n\n")
    print(table(servers, rows))
    figures = {
        server.name: {
            "rows compared, dropped": compared,
            "rounds": [
                {load: found._asdict() for load, found in one.items()} for one in server.rounds
            ],
        }
        for server, compared in zip(servers, rows, strict=True)
    }
    RESULTS.write_text(json.dumps({**settings, "servers": figures}, indent=1) + "\n")
    return 0


def table(servers: Sequence[Measured], rows: Sequence[tuple[int, ...]]) -> str:
    """In Markdown: medians over the rounds."""
    heads = [f"{load}: p50 ms | p99 ms | CPU µs a call" for load in LOADS]
    lines = [
        f"| | {' | '.join(heads)} | rows compared | dropped |",
        f"|---|{'---:|' * (3 * len(LOADS) + 2)}",
    ]
    for server, counts in zip(servers, rows, strict=True):
        cells = [server.name]
        for load in LOADS:
            found = [one[load] for one in server.rounds]
            cells.append(f"{median(one.p50_us for one in found) / 1000:.2f}")
            cells.append(f"{median(one.p99_us for one in found) / 1000:.2f}")
            cells.append(f"{median(one.cpu_us for one in found):.0f}")
        lines.append(f"| {' | '.join([*cells, *map(str, counts)])} |")
    return "\n".join(lines)


def _started(name: str, flags: str, workload: Workload, stack: ExitStack) -> Measured:
    port = free_port()
    find = partial(mlpserve, flags=f"--workers 1 --metrics-listen 127.0.0.1:{port} {flags}")
    server = Server(name, find, calls=own_contract)
    process = stack.enter_context(running(server, workload))
    wait_until_right(process, server, workload)
    call = own_contract(workload).single
    folder = workload.folder / name.replace(" ", "-").replace("/", "-")
    folder.mkdir()
    return Measured(name, process, call, folder, f"http://127.0.0.1:{port}/metrics")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2, help="length of one measurement (2)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (7)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
