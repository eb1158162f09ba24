"""A server without one of its guarantees, as a program: the check must notice.

python -m tests.faults.history.broken_server unverified --store ...
"""

import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mlpserve_model import StoredModel
from mlpserve_model.format import version_files
from mlpserve_server.cli import main
from mlpserve_server.lifecycle.manager import ModelManager

__all__ = ["BROKEN", "broken_command"]

_POLLS = 8


def _unverified() -> None:
    """Load versions without digests and without the self-test."""
    for check in ("compare", "_self_test"):
        setattr(version_files, check, lambda *_: None)


def _backwards() -> None:
    """Let an earlier version answer now and then."""
    get = ModelManager.get

    def broken(self: ModelManager, *args: Any, **kwargs: Any) -> StoredModel:
        earlier = self.loader.standby.models()
        return earlier[0] if earlier and random.random() < 0.01 else get(self, *args, **kwargs)

    ModelManager.get = broken  # type: ignore[method-assign]


def _forgetful() -> None:
    """Follow the store for some polls only."""
    poll, polls = ModelManager.poll, iter(range(_POLLS))
    ModelManager.poll = (  # type: ignore[method-assign]
        lambda self: next(polls, None) is not None and poll(self)
    )


BROKEN: Mapping[str, Callable[[], None]] = {
    "unverified": _unverified,
    "backwards": _backwards,
    "forgetful": _forgetful,
}


def broken_command(how: str) -> list[str]:
    """Return the command of a server that is broken in this way."""
    return [sys.executable, "-m", "tests.faults.history.broken_server", how, "--log-format", "json"]


if __name__ == "__main__":
    BROKEN[sys.argv.pop(1)]()
    sys.exit(main())
