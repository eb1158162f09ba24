"""What was measured: medians over the rounds, one table in Markdown, and JSON."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from statistics import median
from typing import Any

from benchmarks.compare.k6 import Checked
from benchmarks.compare.load import Load
from benchmarks.compare.numpy_alone import NumpyAlone
from benchmarks.compare.rounds import BATCH, SHAPES, Round
from benchmarks.compare.workload import BATCH_ROWS

__all__ = ["Result", "as_json", "machine", "table"]

ONE, EIGHT, MANY, SHARED = SHAPES
HEADINGS = (
    "server",
    "CPU µs a call, 64 conn.",
    "64 on one",
    "1",
    "calls/s, 64 conn.",
    "8",
    "1",
    "p50 / p99 / p99.9 ms, 64 conn.",
    "1 conn.",
    "rows/s, batches",
    "CPU µs a row",
    "memory MB",
    "start s",
    "installed MB",
)


@dataclass
class Result:
    """All rounds of one server, or why there are none."""

    name: str
    version: str = ""
    installed_bytes: int = 0
    trouble: str = ""
    rounds: list[Round] = field(default_factory=list)
    k6: Checked | None = None

    @property
    def loads(self) -> dict[str, Load]:
        """The medians, figure by figure."""
        names = self.rounds[0].loads
        return {name: _medians([one.loads[name] for one in self.rounds]) for name in names}

    @property
    def start_s(self) -> float:
        """Seconds from the start to the first right answer."""
        return median(one.start_s for one in self.rounds)

    @property
    def memory_bytes(self) -> float:
        """Resident memory after the load."""
        return median(one.memory_bytes for one in self.rounds)


def machine() -> dict[str, Any]:
    """What the figures depend on, without a name or a path of this machine."""
    packages = ("grpcio", "protobuf", "numpy")
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def table(results: Sequence[Result], alone: NumpyAlone) -> str:
    """Markdown; in parentheses how many times mlpserve's figure, the first in the table."""
    measured = [result for result in results if result.rounds]
    if not measured:
        return "\n".join(["nothing measured", *_notes(results)])
    rows = [_row(result, measured[0]) for result in measured]
    bare = ["NumPy alone, no server", "", "", f"{alone.row_us:.0f}", *[""] * 5]
    rows.append([*bare, f"{alone.rows_s:,.0f}", f"{alone.batch_us / BATCH_ROWS:.2f}", "", "", ""])
    lines = [_line(HEADINGS), _line(["---", *["---:"] * (len(HEADINGS) - 1)]), *map(_line, rows)]
    return "\n".join([*lines, *_notes(results)])


def as_json(
    results: Sequence[Result], alone: NumpyAlone, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything, the single rounds too."""
    return {
        "machine": machine(),
        "settings": dict(settings),
        "numpy_alone": alone._asdict(),
        "servers": [_server_json(result) for result in results],
    }


def _notes(results: Sequence[Result]) -> list[str]:
    missing = [f"\nNot measured: {r.name}: {r.trouble}" for r in results if r.trouble]
    checked = [(r.name, r.k6) for r in results if r.k6]
    return missing + [
        f"\nk6 on {name}: {k6.passed:,} checks of status and label passed, {k6.failed} failed"
        for name, k6 in checked
    ]


def _server_json(result: Result) -> dict[str, Any]:
    about = {"name": result.name, "version": result.version, "trouble": result.trouble}
    if not result.rounds:
        return about
    return {
        **about,
        "installed_bytes": result.installed_bytes,
        "start_s": result.start_s,
        "memory_bytes": result.memory_bytes,
        "k6": result.k6._asdict() if result.k6 else None,
        "median": {name: load._asdict() for name, load in result.loads.items()},
        "rounds": [
            {**one._asdict(), "loads": {k: load._asdict() for k, load in one.loads.items()}}
            for one in result.rounds
        ],
    }


def _row(result: Result, base: Result) -> list[str]:
    loads, ours = result.loads, base.loads
    many, one, batch = loads[MANY], loads[ONE], loads[BATCH]
    shared = loads.get(SHARED)
    return [
        result.name,
        _with_ratio(many.cpu_us, ours[MANY].cpu_us),
        _with_ratio(shared.cpu_us, ours[SHARED].cpu_us) if shared else "-",
        _with_ratio(one.cpu_us, ours[ONE].cpu_us),
        _with_ratio(many.calls_s, ours[MANY].calls_s),
        f"{loads[EIGHT].calls_s:,.0f}",
        f"{one.calls_s:,.0f}",
        _latency(many),
        _latency(one),
        _with_ratio(batch.calls_s * BATCH_ROWS, ours[BATCH].calls_s * BATCH_ROWS),
        f"{batch.cpu_us / BATCH_ROWS:.2f}",
        f"{result.memory_bytes / 1e6:,.0f}",
        f"{result.start_s:.2f}",
        f"{result.installed_bytes / 1e6:,.0f}",
    ]


def _medians(loads: Sequence[Load]) -> Load:
    return Load(*(median(values) for values in zip(*loads, strict=True)))


def _with_ratio(value: float, ours: float) -> str:
    ratio = value / ours
    return f"{value:,.0f} ({ratio:.{1 if ratio >= 0.95 else 2}f})"


def _latency(load: Load) -> str:
    return " / ".join(f"{us / 1000:.2f}" for us in (load.p50_us, load.p99_us, load.p999_us))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
