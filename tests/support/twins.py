"""A test run again in a process of its own, where a part of the project is broken: it must fail."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import Process

__all__ = ["assert_fails"]

_ROOT = Path(__file__).parents[2]
_FLAGS = ("-x", "-q", "--tb=short", "-p", "no:cacheprovider", "--timeout-method", "thread")
_QUICK = ("-m", "not slow and not soak")


def assert_fails(code: str, test: str, failure: str, seconds: float = 300) -> None:
    """Run a test where code has broken a part, and assert that it fails in the expected way.

    Args:
        code: breaks the part, in the process of the test and in the servers that it starts.
        test: its node id, below `tests`; of several cases one must fail.
        failure: a regular expression for what the test prints when it notices.
        seconds: how long it may take, after which its threads are printed.

    """
    command = [sys.executable, "-m", "tests.support.twins", code, f"tests/{test}", *_FLAGS]
    command += [*_QUICK, "--timeout", str(seconds)]
    done = subprocess.run(command, cwd=_ROOT, text=True, capture_output=True)
    output = done.stdout + done.stderr
    found = re.search(failure, output)
    assert done.returncode == 1, f"exit code {done.returncode}, expected a failed test\n{output}"
    assert found, f"{failure!r} not in\n{output}"
    print(f"\n{test}: {found[0]}")


if __name__ == "__main__":
    Process.twin = sys.argv.pop(1)
    exec(Process.twin, {})
    sys.exit(pytest.main(sys.argv[1:]))
