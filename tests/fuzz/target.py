"""What is fuzzed: a parser of foreign bytes, and the errors that it documents.

A finding is any other exception, more memory or time than the driver allows, or an answer that a
target's own assertions refuse.
"""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

__all__ = ["CORPUS", "ROOMS", "Target", "load_targets", "scratch", "split", "target"]

CORPUS = Path(__file__).with_name("corpus")
ROOMS = ("model", "interchange", "server", "trainer", "client", "web")
# Separates the parts of one input where a parser takes several.
_SEPARATOR = b"\n--\n"


@dataclass(frozen=True)
class Target:
    """One parser: `run` feeds it one input, `documented` are the errors it may raise."""

    name: str
    run: Callable[[bytes], None]
    documented: tuple[type[BaseException], ...]

    def __call__(self, data: bytes) -> None:
        """Feed one input; raises whatever is not documented."""
        with suppress(*self.documented):
            self.run(data)

    @property
    def seeds(self) -> list[Path]:
        """The committed inputs: seeds, and what earlier runs found."""
        return sorted((CORPUS / self.name).iterdir())


_targets: dict[str, Target] = {}


def target(
    *documented: type[BaseException],
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Register a function as a target, named for its module and itself: `model.manifest`."""

    def register(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        room = run.__module__.rpartition(".")[2]
        name = f"{room}.{run.__name__}"
        _targets[name] = Target(name, run, documented)
        return run

    return register


def load_targets(*rooms: str) -> dict[str, Target]:
    """Import the targets of these rooms, of all by default, and return them by name."""
    wanted = rooms or ROOMS
    for room in wanted:
        import_module(f"tests.fuzz.{room}")
    return {name: found for name, found in _targets.items() if name.partition(".")[0] in wanted}


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def scratch(name: str, data: bytes | None = None) -> Path:
    """Return a path in a folder of this process, with these contents, for its owner alone."""
    path = Path(_folder().name, name)
    if data is not None:
        path.touch(mode=0o600)
        path.write_bytes(data)
    return path


def split(data: bytes, parts: int) -> list[bytes]:
    """Cut an input into so many parts at lines of two hyphens; those that are missing are empty."""
    found = data.split(_SEPARATOR, parts - 1)
    return found + [b""] * (parts - len(found))
