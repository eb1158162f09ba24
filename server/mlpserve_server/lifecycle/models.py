"""The models that a server answers for, by name: named ones, and those that patterns find.

Models that match a pattern appear and vanish with the store, which is the truth for all replicas.
"""

import difflib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from mlpserve_model import StoreError
from mlpserve_model.format.manifest import NAME
from mlpserve_model.process.choices import are_several
from mlpserve_model.process.follower import Guard
from mlpserve_server.errors import InvalidInput, ModelNotFound
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.polls import Polls
from mlpserve_server.lifecycle.selection import listed
from mlpserve_server.security.scope import ALL, Scope

__all__ = ["Models"]

# Names that a wrong one is compared with, to say which was meant.
_MAX_COMPARED = 20
# Models with gauges of their own.
_MAX_LABELLED = 100

log = logging.getLogger(__name__)


class Models:
    """The managers of the models that are served, by name.

    Args:
        patterns: Names and patterns of models, at least one.
        default: Name of the model that answers calls that name none; None: the only model.
        make: Makes the manager of a name.
        names: Lists the models in the store; called only if there is a pattern.
        on_change: Called with the names of models after another version of them answers, and after
            they appeared or vanished.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        default: str | None,
        make: Callable[[str], ModelManager],
        names: Callable[[], Sequence[str]],
        on_change: Callable[[Sequence[str]], None] = lambda names: None,
    ) -> None:
        self.default = default
        self._make = make
        self._names = names
        self._on_change = on_change
        self._named = [pattern for pattern in patterns if NAME.fullmatch(pattern)]
        self._patterns = [pattern for pattern in patterns if pattern not in self._named]
        # Replaced as a whole, never changed: calls read it without a lock.
        self.managers: Mapping[str, ModelManager] = {name: make(name) for name in self._named}
        self._missing: frozenset[str] = frozenset()
        self._guards: dict[str, Guard] = {}
        self._polled: set[str] = set()
        self._tried = not self._patterns  # or all models that were there were polled, once
        self._fault = ""
        self.several = are_several(patterns)
        self._polls = Polls(self._poll) if self.several else None

    @property
    def ready(self) -> bool:
        """Whether every model that was named can answer, and what patterns found first was tried.

        A model that a pattern finds later keeps nobody waiting: it is ready by its own name.
        """
        managers = self.managers
        can_answer = {name for name, manager in managers.items() if manager.current}
        return self._tried and bool(can_answer) and can_answer.issuperset(self._named)

    @property
    def max_inputs(self) -> int:
        """The inputs of the model in memory that has most of them; 0 without models."""
        return max((manager.max_inputs for manager in self.managers.values()), default=0)

    def labelled(self) -> list[ModelManager]:
        """Return the managers that have gauges of their own: those of the first 100 names."""
        return [manager for _, manager in sorted(self.managers.items())[:_MAX_LABELLED]]

    def get(
        self, name: str | None = None, field: str = "model.name", scope: Scope = ALL
    ) -> ModelManager:
        """Return the manager of a model.

        Args:
            name: The model; None for the default one.
            field: The field of the request that names it, for the error.
            scope: The models that the caller may use, and learn the names of.

        Raises:
            ModelForbidden: The caller may not use it.
            ModelNotFound: No model of this name is served.
            InvalidInput: None is named, and there are several.

        """
        managers = self.managers
        if name is None:
            name = self.default or _only(managers, field, scope)
        if scope is not ALL:
            scope.require(name)
        if manager := managers.get(name):
            return manager
        raise ModelNotFound(_not_served(name, scope.among(managers)))

    def poll(self) -> None:
        """Find models that appeared or vanished, and poll the store of each, once."""
        if self._patterns:
            self._follow_names()
        if self._polls is None:
            for name, manager in self.managers.items():
                self._poll(name, manager)
            return
        # Of one that hangs nothing is known, also that it is settled.
        idle = ((n, m) for n, m in self.managers.items() if not self._polls.is_under_way(m))
        self._polls.run([(n, m) for n, m in idle if n not in self._polled or not m.is_settled()])

    def close(self) -> None:
        """Poll no more; a poll that has begun is not waited for."""
        if self._polls:
            self._polls.close()

    def _poll(self, name: str, manager: ModelManager) -> None:
        """Poll one model; whatever happens to it is no other's concern."""
        if self._polls is None:
            switched = manager.poll()  # the follower of the store is the guard
        else:
            found: list[bool] = []
            guard = self._guards.setdefault(name, Guard(f"store of {name}"))
            guard.run(lambda: found.append(manager.poll()))
            switched = any(found)
        first = name not in self._polled
        self._polled.add(name)
        if first:
            self._note_tried()
        if switched or first:
            self._on_change([name])

    def _follow_names(self) -> None:
        """Make managers of new names, and drop those that are gone.

        A model vanishes when it is missing in two listings that have other models: an unmounted
        volume or an empty bucket takes none away.
        """
        try:
            listed = {name for name in self._names() if self._matches(name)}
        except StoreError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                log.error("the models cannot be listed", extra={"reason": self._fault})
            return
        self._fault = ""
        managers = dict(self.managers)
        missing = frozenset(managers.keys() - listed - set(self._named)) if listed else frozenset()
        gone, self._missing = missing & self._missing, missing
        new = sorted(listed - managers.keys())
        if not new and not gone:
            return
        for name in gone:
            del managers[name]
            self._polled.discard(name)
            log.info("model removed", extra={"model": name})
        for name in new:
            managers[name] = self._make(name)
            log.info("model found", extra={"model": name})
        self.managers = managers
        self._note_tried()
        self._on_change([*new, *gone])

    def _note_tried(self) -> None:
        if self._polled.issuperset(self.managers):  # never False again: threads note it at once
            self._tried = True

    def _matches(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._patterns)


def _only(names: Collection[str], field: str, scope: Scope) -> str:
    """Return the only name; raise InvalidInput if there is none, or more than one."""
    if len(names) != 1:
        raise InvalidInput(field, f"name a model: served are {listed(scope.among(names))}")
    return next(iter(names))


def _not_served(name: str, names: Sequence[str]) -> str:
    # On the path of calls: each wrong name would stop them for 8 ms among 100 models of long names.
    near = difflib.get_close_matches(name[:63], names if len(names) <= _MAX_COMPARED else (), n=1)
    hint = f"; did you mean {near[0]}?" if near and len(names) > 1 else ""
    return f"there is no model {name[:63]!r}; served: {listed(names)}{hint}"
