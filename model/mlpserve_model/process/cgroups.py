"""The cgroups that limit this process, in their files."""

from collections.abc import Iterator
from pathlib import Path

__all__ = ["groups", "read"]

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the cgroups that limit this process by a controller, such as "cpu".

    A line of /proc/self/cgroup is "0::/path" in version 2 and "3:cpu,cpuacct:/path" in version 1.
    In a container the path may be the host's, and only the root exists.
    """
    for line in read(OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS
        names = path.strip("/").split("/")
        # A limit of an outer group holds for the inner ones.
        yield from (root.joinpath(*names[:depth]) for depth in range(len(names) + 1))


def read(path: Path) -> str:
    """Return the contents of a file, "" if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
