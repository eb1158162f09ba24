"""What `predict` costs a caller in two or more versions of this repository: CPU time, in turns.

    python benchmarks/compare_clients.py OLD NEW [NEW ...] [--rounds 40] [--calls 300]

OLD and NEW are commits, or folders with a checkout; "." is the working tree. All clients call one
server, that of the working tree, each in a process of its own, for a moment in turn. OLD is
measured twice, and the ratio of the two is the noise floor. Printed are the medians of CPU
microseconds a call (of the client's process, gRPC's threads included), and the median ratio to OLD
in the same round, with an interval that holds 95 % of such medians.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# So that the parts can be imported however this file is run.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.compare.environments import ROOT
from benchmarks.compare.workload import make
from benchmarks.compare_commits import Rounds, cell, checkout, running

INPUTS = {"uint8": "x", "float32": "(x / 255).astype(np.float32)"}
# Reads lines of an input's name and a number of calls; answers each with CPU microseconds a call.
CLIENT = f"""
import sys, time
import numpy as np
from mlpserve_client import Client

x = (np.random.default_rng(0).random((28, 28)) * 255).astype(np.uint8)
inputs = {{{", ".join(f"{name!r}: {code}" for name, code in INPUTS.items())}}}
with Client(sys.argv[1], timeout=60) as client:
    for line in sys.stdin:
        name, calls = line.split()
        instance, count = inputs[name], int(calls)
        started = time.process_time()
        for _ in range(count):
            client.predict(instance)
        print(1e6 * (time.process_time() - started) / count, flush=True)
"""


class Side:
    """The client of one version; `rounds` has its CPU microseconds a call by input."""

    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        self.name = name
        self._process = process
        self.rounds: Rounds = []

    def measure(self, calls: int) -> dict[str, float]:
        """Make the calls with each input."""
        return {name: self._cost(name, calls) for name in INPUTS}

    def _cost(self, name: str, calls: int) -> float:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{name} {calls}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def main() -> int:
    """Measure and print a table."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="clients-") as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(running(ROOT, folder / "server", make(folder)))
        sides = []
        for number, which in enumerate([options.commits[0], *options.commits]):
            client = _client(checkout(which, folder), f"127.0.0.1:{server.port}")
            side = Side(f"{which} again" if number == 1 else which, stack.enter_context(client))
            side.measure(options.calls)
            sides.append(side)
        for number in range(options.rounds):
            for side in sides if number % 2 else sides[::-1]:
                side.rounds.append(side.measure(options.calls))
    for side in sides:
        cells = (f"{name}, µs: {cell(side.rounds, sides[0].rounds, name)}" for name in INPUTS)
        print(f"{side.name:20}", "   ".join(cells))
    return 0


@contextmanager
def _client(root: Path, target: str) -> Iterator["subprocess.Popen[str]"]:
    path = ":".join(str(root / part) for part in ("proto", "client"))
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": path},
    )
    with process:  # which closes its standard input, and so ends it
        yield process


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs="+", metavar="COMMIT", help="the first is compared with")
    parser.add_argument("--rounds", type=int, default=40, help="how often each is measured (40)")
    parser.add_argument("--calls", type=int, default=300, help="of one measurement (300)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
