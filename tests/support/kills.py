"""Processes killed before each of their system calls, one after the other."""

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

__all__ = ["killed_before_each_call"]

_CALLS = (
    "open", "close", "fsync", "link", "rename", "replace", "unlink", "mkdir", "scandir", "stat",
    "rmdir", "fdopen",
)  # fmt: skip
MAX_CALLS = 2000


def killed_before_each_call(
    act: Callable[[], object], prepare: Callable[[], object] = lambda: None, step: int = 1
) -> Iterator[int]:
    """Run `act` in a process that is killed before its first call of the system, then before its
    second, and so on; give the number of calls after each kill, until one run ends by itself.

    `prepare` is called before each run, to undo what the one before has left; of the calls, every
    `step`-th is tried.
    """
    for calls in range(0, MAX_CALLS, step):
        prepare()
        child = os.fork()
        if child == 0:
            _run(act, calls)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "see the traceback above"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield calls
    raise AssertionError(f"more than {MAX_CALLS} calls")


def _run(act: Callable[[], object], calls: int) -> NoReturn:
    try:
        left = [calls]
        for name in _CALLS:
            setattr(os, name, _dying(getattr(os, name), left))
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _dying(call: Any, left: list[int]) -> Any:
    def dying(*args: Any, **kwargs: Any) -> Any:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return call(*args, **kwargs)

    return dying
