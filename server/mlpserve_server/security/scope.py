"""The models that a caller may use, by the token that it shows."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mlpserve_server.errors import ModelForbidden

__all__ = ["ALL", "Scope"]


@dataclass(frozen=True)
class Scope:
    """The names and patterns of the models that a caller may use."""

    patterns: tuple[str, ...]

    def allows(self, model: str) -> bool:
        """Return True if the caller may use the model of this name."""
        return self is ALL or any(fnmatchcase(model, pattern) for pattern in self.patterns)

    def require(self, model: str) -> None:
        """Raise ModelForbidden unless the caller may use the model of this name."""
        if not self.allows(model):
            raise ModelForbidden(model)

    def among(self, models: Iterable[str]) -> list[str]:
        """Return the names of those models that the caller may use, sorted."""
        return sorted(filter(self.allows, models))


# The scope of every caller where tokens name no models, and where there are none.
ALL = Scope(("*",))
