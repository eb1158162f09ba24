"""Where a store is: a folder, or a place in an object store."""

import re
from dataclasses import dataclass
from pathlib import Path

from mlpserve_model.format.errors import StoreError

__all__ = ["SCHEMES", "Bucket", "Location", "missing_client", "no_folder", "parse_location"]

SCHEMES = ("s3", "gs", "az")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# What all three allow in a name, without escapes.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,254}")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A place in an object store: the kind (one of SCHEMES), the bucket and a prefix."""

    scheme: str
    name: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}" + (f"/{self.prefix}" if self.prefix else "")


Location = Path | Bucket


def parse_location(text: Path | Bucket | str) -> Location:
    """Return the location that this text means; raises StoreError for an invalid address."""
    if not isinstance(text, str):
        return text
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return Path(text)
    scheme, rest = match.groups()
    if scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise StoreError(f"{text!r} is neither a folder nor an address with {known}")
    name, _, prefix = rest.partition("/")
    prefix = prefix.removesuffix("/")
    segments = prefix.split("/") if prefix else []
    if not _BUCKET.fullmatch(name) or not all(map(_SEGMENT.fullmatch, segments)):
        raise StoreError(
            f"{text!r} is not {scheme}://BUCKET/PREFIX: a bucket matches {_BUCKET.pattern}, "
            f"each part of a prefix {_SEGMENT.pattern}"
        )
    return Bucket(scheme, name, prefix)


def no_folder(place: Location) -> str:
    """Return the end of a message about a place where nothing is, if its folder is not there."""
    missing = isinstance(place, Path) and not place.is_dir()
    return ": there is no such folder" if missing else ""


def missing_client(place: Bucket, error: ModuleNotFoundError) -> StoreError:
    """Return the error for an object store whose client is not installed."""
    return StoreError(
        f"{place} needs the package {error.name}: install the extra object-store, "
        "in a checkout: pip install '.[object-store]'"
    )
