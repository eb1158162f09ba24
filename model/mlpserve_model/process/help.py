"""The format of `--help` and `--version`."""

import argparse
from collections.abc import Iterable
from typing import Any

from mlpserve_model.process.versions import version_of

__all__ = ["PrintVersion", "ShortUsage"]

_MAX_FLAGS = 4


class ShortUsage(argparse.HelpFormatter):
    """Names in the usage line the flags that are required, and others only where they are few.

    The usage of thirty flags takes half a terminal, and each of them is listed below it.
    """

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        """Add the usage line."""
        shown = list(actions)
        if sum(bool(action.option_strings) for action in shown) > _MAX_FLAGS:
            flags = argparse.Action([], "flags", nargs="*", metavar="--FLAG")
            shown = [flags, *(a for a in shown if a.required or not a.option_strings)]
            groups = []
        super().add_usage(usage, shown, groups, prefix)


class PrintVersion(argparse._VersionAction):
    """Print the program's name and the version of mlpserve, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        """Print and exit."""
        self.version = f"{parser.prog} {version_of('mlpserve')}"
        super().__call__(parser, *rest)
