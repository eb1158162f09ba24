"""What can go wrong with the store, in words for the person who can act."""

__all__ = [
    "AliasConflict",
    "CorruptVersion",
    "StoreBusy",
    "StoreError",
    "VersionNotFound",
]


class StoreError(Exception):
    """The store cannot be read or written; the parent of every error of this package."""


class StoreBusy(StoreError):
    """Another process held the store's lock for too long."""


class VersionNotFound(StoreError):
    """There is no such version, or no such alias."""


class AliasConflict(StoreError):
    """The alias moved in the meantime, or may not move there."""


class CorruptVersion(StoreError):
    """A version's files are not what its manifest promises; the message is the reason."""
