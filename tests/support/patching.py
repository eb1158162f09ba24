"""Methods replaced in one object alone.

Servers of other tests, which a session or a module shares, run in the same process: a method that
is replaced in its class is replaced in them too, and both tests fail now and then.
"""

from collections.abc import Callable
from typing import Any

import pytest

__all__ = ["patch_method", "patch_method_of"]


def patch_method(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, method: Callable[..., Any]
) -> None:
    """Replace a method of one object, also of one whose attributes cannot be set.

    Args:
        monkeypatch: undoes it after the test.
        owner: the object; the method stays what it was in others of its class.
        name: name of the method.
        method: what is called instead, without the object itself.

    """
    patch_method_of(monkeypatch, type(owner), name, lambda each: each is owner, _alone(method))


def patch_method_of(
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    is_ours: Callable[[Any], bool],
    method: Callable[..., Any],
) -> None:
    """Replace a method of those objects of a class that belong to the test.

    Args:
        monkeypatch: undoes it after the test.
        owner: the class.
        name: name of the method.
        is_ours: tells the test's objects, which need not be there yet, from others.
        method: what is called instead, with the object first.

    """
    original = getattr(owner, name)

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (method if is_ours(self) else original)(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, patched)


def _alone(method: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: method(*args, **kwargs)
