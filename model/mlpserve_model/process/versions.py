"""The versions of installed packages."""

from functools import cache

__all__ = ["version_of"]


@cache
def version_of(package: str) -> str:
    """Return the version of a package that is installed; raises PackageNotFoundError."""
    # With its parser of mail, this import takes a twentieth of a program's start, which most
    # programs can do without.
    from importlib.metadata import version

    return version(package)
