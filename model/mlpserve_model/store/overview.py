"""What a store holds, as rows for people and scripts."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from mlpserve_model.format.errors import StoreError, VersionNotFound
from mlpserve_model.format.manifest import Manifest
from mlpserve_model.store.listing import ModelListing
from mlpserve_model.store.location import Location
from mlpserve_model.store.reader import StoreReader
from mlpserve_model.store.store import CHAMPION

__all__ = ["missing", "model_rows", "names_of", "of_all", "version_rows"]

_Found = TypeVar("_Found")


def version_rows(store: StoreReader) -> list[dict[str, Any]]:
    """Return what is known of each version, newest first, and of those that aliases point at."""
    aliases = store.aliases()
    gone = partial(_missing_row, aliases)
    return [*of_all(store, aliases, partial(_row, store, aliases), gone).values()][::-1]


def model_rows(root: Location) -> list[dict[str, Any]]:
    """Return name, number of versions and champion of each model that has versions, by name."""
    rows = []
    for name in ModelListing(root).names():
        store = StoreReader(root, name)
        if versions := len(store.versions()):
            champion = store.aliases().get(CHAMPION)
            rows.append({"model": name, "versions": versions, "champion": champion})
    return rows


def of_all(
    store: StoreReader,
    aliases: dict[str, int],
    describe: Callable[[int], _Found],
    gone: Callable[[int], _Found],
) -> dict[int, _Found]:
    """Return what `describe` says of every version, oldest first.

    What an alias points at and is gone is described by `gone`. A version that was pruned
    meanwhile is left out.
    """
    found, pointed = {}, set(aliases.values())
    for version in sorted({*store.versions(), *pointed}):
        try:
            found[version] = describe(version)
        except VersionNotFound:
            if version in pointed:
                found[version] = gone(version)
    return found


def missing(aliases: dict[str, int], version: int) -> str:
    """Return the fault of a version that aliases point at and that is not there."""
    return f"there is no such version, and {', '.join(names_of(aliases, version))} points at it"


def names_of(aliases: dict[str, int], version: int) -> list[str]:
    """Return the aliases that point at a version."""
    return sorted(alias for alias, target in aliases.items() if target == version)


def _missing_row(aliases: dict[str, int], version: int) -> dict[str, Any]:
    row = {"version": version, "aliases": names_of(aliases, version)}
    return row | {"verdict": "MISSING", "fault": missing(aliases, version)}


def _row(store: StoreReader, aliases: dict[str, int], version: int) -> dict[str, Any]:
    row = {"version": version, "aliases": names_of(aliases, version)}
    try:
        return row | _summary(store.manifest(version))
    except VersionNotFound:
        raise
    except StoreError as error:
        return row | {"verdict": "DAMAGED", "fault": str(error)}


def _summary(manifest: Manifest) -> dict[str, Any]:
    return {
        "verdict": manifest.gate.verdict,
        "reasons": manifest.gate.reasons,
        "created": manifest.created.isoformat(),
        "digest": manifest.digest,
        "metrics": dict(manifest.metrics),
    }
