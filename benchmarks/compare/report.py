"""What was measured: medians over the rounds, one table in Markdown, and JSON."""

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from statistics import median
from typing import Any, NamedTuple

from benchmarks.compare.k6 import Checked
from benchmarks.compare.load import Load
from benchmarks.compare.numpy_alone import NumpyAlone
from benchmarks.compare.rounds import BATCH, EIGHT, MANY, ONE, SHARED, Round
from benchmarks.compare.workload import BATCH_ROWS

__all__ = ["Result", "as_json", "machine", "table"]


class Column(NamedTuple):
    """A figure of one load; `ratio` adds how many times mlpserve's it is."""

    heading: str
    load: str
    figure: Callable[[Load], float]
    ratio: bool = False
    digits: int = 0


def _cpu_us(load: Load) -> float:
    return load.cpu_us


def _calls_s(load: Load) -> float:
    return load.calls_s


COLUMNS = (
    Column("CPU µs a call: 64 conn.", MANY, _cpu_us, ratio=True),
    Column("64 on one", SHARED, _cpu_us, ratio=True),
    Column("1", ONE, _cpu_us, ratio=True),
    Column("calls/s: 64 conn.", MANY, _calls_s, ratio=True),
    Column("8", EIGHT, _calls_s),
    Column("1", ONE, _calls_s),
    Column("ms, 64 conn.: p50", MANY, lambda load: load.p50_us / 1e3, digits=2),
    Column("p99", MANY, lambda load: load.p99_us / 1e3, digits=2),
    Column("p99.9", MANY, lambda load: load.p999_us / 1e3, digits=2),
    Column("ms, 1 conn.: p50", ONE, lambda load: load.p50_us / 1e3, digits=2),
    Column("p99", ONE, lambda load: load.p99_us / 1e3, digits=2),
    Column("rows/s, batches", BATCH, lambda load: load.calls_s * BATCH_ROWS, ratio=True),
    Column("CPU µs a row", BATCH, lambda load: load.cpu_us / BATCH_ROWS, digits=2),
)
OTHER_HEADINGS = ("memory MB", "start s", "installed MB")


@dataclass
class Result:
    """All rounds of one server, or why there are none."""

    name: str
    version: str = ""
    installed_bytes: int = 0
    trouble: str = ""
    rounds: list[Round] = field(default_factory=list)
    k6: Checked | None = None
    k6_trouble: str = ""

    @property
    def loads(self) -> dict[str, Load]:
        """The medians, figure by figure, of the loads under which no call ever failed."""
        names = [name for name in self.rounds[0].loads if name not in self.failures]
        return {name: _medians([one.loads[name] for one in self.rounds]) for name in names}

    @property
    def failures(self) -> dict[str, str]:
        """The loads under which calls failed, and how, in the last round with any."""
        return {name: text for one in self.rounds for name, text in one.failures.items()}

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
    """Markdown; in parentheses how many times the figure of the first in the table."""
    measured = [result for result in results if result.rounds]
    headings = ["server", *(column.heading for column in COLUMNS), *OTHER_HEADINGS]
    rows = [_row(result, measured[0]) for result in measured]
    lines = [_line(headings), _line(["---", *["---:"] * (len(headings) - 1)]), *map(_line, rows)]
    bare = (
        f"NumPy alone, no server: {alone.row_us:.0f} CPU µs a row; in batches {alone.rows_s:,.0f} "
    )
    bare += f"rows/s, {alone.batch_us / BATCH_ROWS:.2f} CPU µs a row"
    versions = "; ".join(f"{result.name}: {result.version}" for result in measured)
    parts = [bare, f"Versions: {versions}", _others(measured), *_notes(results)]
    return "\n\n".join(["\n".join(lines), *parts])


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


def _notes(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        if result.trouble:
            rounds = f"only {len(result.rounds)} rounds" if result.rounds else "not measured"
            yield f"{result.name}: {rounds}: {result.trouble}"
        for load, failure in result.failures.items():
            yield f"{result.name}: no figures for {load}: {failure}"
        if result.k6_trouble:
            yield f"{result.name}: not checked by k6: {result.k6_trouble}"
        if result.k6:
            passed, failed = result.k6
            yield f"{result.name}: k6 checked status and label: {passed:,} right, {failed:,} wrong"


def _others(measured: Sequence[Result]) -> str:
    shares = [load.others for r in measured for one in r.rounds for load in one.loads.values()]
    share = median(shares) if shares else 0
    return f"Other programs took {share:.0%} of the cores' time meanwhile (median)"


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
        "failures": result.failures,
        "median": {name: load._asdict() for name, load in result.loads.items()},
        "rounds": [
            {**one._asdict(), "loads": {k: load._asdict() for k, load in one.loads.items()}}
            for one in result.rounds
        ],
    }


def _row(result: Result, base: Result) -> list[str]:
    loads, ours = result.loads, base.loads
    return [
        result.name,
        *(_cell(column, loads.get(column.load), ours.get(column.load)) for column in COLUMNS),
        f"{result.memory_bytes / 1e6:,.0f}",
        f"{result.start_s:.2f}",
        f"{result.installed_bytes / 1e6:,.0f}",
    ]


def _cell(column: Column, load: Load | None, ours: Load | None) -> str:
    if not load:
        return "-"
    value = column.figure(load)
    text = f"{value:,.{column.digits}f}"
    if not (column.ratio and ours):
        return text
    ratio = value / column.figure(ours)
    return f"{text} ({ratio:.{1 if ratio >= 0.95 else 2}f})"


def _medians(loads: Sequence[Load]) -> Load:
    return Load(*(median(values) for values in zip(*loads, strict=True)))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
