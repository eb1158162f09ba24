"""What Linux knows of the processes that a test has started."""

from pathlib import Path

__all__ = ["children"]


def children(pid: int) -> list[int]:
    """Return the processes that this one has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = path.read_text().partition(" ")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        state, parent = rest.rpartition(")")[2].split()[:2]
        if int(parent) == pid and state != "Z":
            found.append(int(number))
    return found
