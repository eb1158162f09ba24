"""Python processes that a program starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["safe_path"]


@contextmanager
def safe_path() -> Iterator[None]:
    """Keep the current folder off the module search path of processes started meanwhile.

    Python puts the current folder first for `python -c` and `python -m`, by which the standard
    library and joblib start theirs: a file random.py there would be run instead of Python's own.
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
