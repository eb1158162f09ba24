"""What can go wrong with the store; the messages are for the person who can act."""

__all__ = [
    "AliasConflict",
    "CorruptVersion",
    "StoreBusy",
    "StoreError",
    "UnsupportedModel",
    "VersionNotFound",
]


class StoreError(Exception):
    """The store cannot be read or written; the parent of every error of this package."""


class StoreBusy(StoreError):
    """Another process holds the store's lock."""


class VersionNotFound(StoreError):
    """There is no such version, or no such alias."""


class AliasConflict(StoreError):
    """The alias points at another version than was expected."""


class CorruptVersion(StoreError):
    """A version's files are not what its manifest says, or must not be served; with the reason."""


class UnsupportedModel(StoreError):
    """A file of another program cannot become a version, or a version such a file; the reason."""
