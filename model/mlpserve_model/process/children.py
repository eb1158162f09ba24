"""Python processes that a program starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["safe_path"]


@contextmanager
def safe_path() -> Iterator[None]:
    """Exclude the current folder from the module search path of processes started meanwhile.

    The standard library and joblib start processes by `python -c` and `python -m`, for which Python
    searches the current folder first: a file random.py there would replace Python's own.
    """
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
