"""Objects in S3, Google Cloud Storage or Azure, through obstore.

obstore is one maintained client for all three, with conditional puts. Its errors become OSError in
this module.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotModifiedError,
    PreconditionError,
)
from obstore.store import from_url

from mlpserve_model.format.errors import CorruptVersion, StoreError
from mlpserve_model.format.manifest import FileInfo
from mlpserve_model.store.backend import Conflict
from mlpserve_model.store.location import Bucket

__all__ = ["Entry", "Found", "Objects", "open_objects"]

# The prefixes of the environment's variables, such as AWS_ENDPOINT_URL.
_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
# Bounds on one request and on its repetition; variables such as AWS_TIMEOUT change them. A server
# or a command reports a store that hangs within these times.
_CLIENT = {"timeout": "15s", "connect_timeout": "5s"}
_CLIENT_VARIABLES = (
    *("allow_http", "allow_invalid_certificates", "connect_timeout", "pool_idle_timeout"),
    *("proxy_ca_certificate", "proxy_excludes", "proxy_url", "timeout", "user_agent"),
)
_S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_RETRY: dict[str, Any] = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2)},
}
_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist")
_MAX_MESSAGE = 300
_CHUNK = 2**20

T = TypeVar("T")
Tag = Mapping[str, str]  # identifies the content of an object


@dataclass(frozen=True, slots=True)
class Found:
    """An object's bytes and their tag."""

    data: bytes
    tag: Tag = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a listing: its ETag, and when it was written, by the store's clock."""

    name: str
    tag: str
    written: datetime


class Objects:
    """The objects below one address. Every method raises OSError when the store fails."""

    def __init__(self, store: Any, address: str) -> None:
        self._store = store
        self._address = address

    def __str__(self) -> str:
        return self._address

    def get(self, name: str, limit: int, known: Found | None = None) -> Found:
        """Return an object; `known` if it has not changed, without transferring it again.

        Raises FileNotFoundError, or CorruptVersion above `limit` bytes, before reading them.
        """
        options: Any = {}
        if known is not None and "e_tag" in known.tag:
            options["if_none_match"] = known.tag["e_tag"]
        with _foreign():
            try:
                result = obstore.get(self._store, name, options=options)
            except NotModifiedError:
                assert known is not None  # only this makes a request conditional
                return known
            size = result.meta["size"]
            if size > limit:
                short = name.rpartition("/")[2]
                raise CorruptVersion(f"{short} has {size} bytes, expected at most {limit}")
            return Found(bytes(result.bytes()), _tag(result.meta))

    def find(self, name: str) -> Found | None:
        """Return a small object, or None where there is none."""
        try:
            return self.get(name, 2**30)
        except FileNotFoundError:
            return None

    def tag(self, name: str) -> str | None:
        """Return an object's ETag, or None where there is no such object."""
        with _foreign():
            try:
                return obstore.head(self._store, name)["e_tag"] or ""
            except FileNotFoundError:
                return None

    def stat(self, name: str) -> FileInfo:
        """Return an object's digest and size, in little memory; raises FileNotFoundError."""
        digest, size = hashlib.sha256(), 0
        with _foreign():
            for chunk in obstore.get(self._store, name).stream(min_chunk_size=_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return FileInfo(digest.hexdigest(), size)

    def put(self, name: str, data: bytes, instead_of: Found | None = None) -> Found:
        """Create an object, or replace exactly this one; raises Conflict when there is another.

        A request that failed and left the object as it was is sent a second time. Should the first
        one arrive after all, the second conflicts with it and finds its own bytes.
        """
        with _foreign():
            return _sent_twice(partial(self._put, name, data, instead_of))

    def _put(self, name: str, data: bytes, instead_of: Found | None) -> Found:
        """Send one request; raises Conflict, and BaseError if the object is as it was.

        After a failed request the object is read: it may have been written although the answer was
        lost, or a repetition may have met the object of the first attempt.
        """
        mode: Any = "create" if instead_of is None else dict(instead_of.tag)
        try:
            result = obstore.put(self._store, name, data, mode=mode, use_multipart=False)
        except BaseError as error:
            now = self.find(name)
            if now is not None and now.data == data:
                return now
            if now != instead_of or isinstance(error, AlreadyExistsError | PreconditionError):
                raise Conflict(name) from None
            raise
        return Found(data, _tag(result))

    def list(self, folder: str = "") -> Sequence[Entry]:
        """List every object whose name begins with `folder/`, or all objects."""
        with _foreign():
            pages = obstore.list(self._store, folder or None)
            return [
                Entry(o["path"], o["e_tag"] or "", o["last_modified"])
                for page in pages
                for o in page
            ]

    def folders(self, folder: str = "") -> Sequence[str]:
        """Return the last parts of the prefixes below a folder, or below the address."""
        with _foreign():
            found = obstore.list_with_delimiter(self._store, folder or None)
            return [prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]]

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there count as removed."""
        for name in names:
            with _foreign(), suppress(FileNotFoundError):
                _sent_twice(partial(obstore.delete, self._store, name))


def open_objects(location: Bucket, model: str, environment: Mapping[str, str]) -> Objects:
    """Return the objects of a model ("": of all), with the environment's credentials and endpoint.

    No request is sent. Raises StoreError when the environment is not sufficient.
    """
    prefix = _PREFIXES[location.scheme]
    client = {
        name: environment[variable]
        for name in _CLIENT_VARIABLES
        if (variable := prefix + name.upper()) in environment
    }
    plain = _unencrypted(environment) if location.scheme == "s3" else None
    if plain and client.get("allow_http", "").lower() not in ("1", "true"):
        raise StoreError(f"{plain} is not encrypted: AWS_ALLOW_HTTP=true allows that")
    address = f"{location}/{model}".rstrip("/")
    try:
        options: Any = {"client_options": _CLIENT | client, "retry_config": _RETRY}
        store = from_url(address, **options)
    except (BaseError, ValueError, TypeError) as error:
        raise StoreError(f"cannot use {location}: {_said(error)}") from error
    return Objects(store, address)


def _unencrypted(environment: Mapping[str, str]) -> str | None:
    """Return an endpoint without TLS, for which S3's client has no helpful message."""
    named = (environment.get(name, "") for name in _S3_ENDPOINTS)
    return next((endpoint for endpoint in named if endpoint.startswith("http://")), None)


def _tag(meta: Mapping[str, Any]) -> Tag:
    tag = {key: meta[key] for key in ("e_tag", "version") if meta[key] is not None}
    if not tag:
        raise OSError("the object store gives its objects no ETag, which is needed here")
    return tag


def _sent_twice(send: Callable[[], T]) -> T:
    """Send a request that changes something again if it failed.

    obstore repeats what only reads, but after a lost connection nothing else.
    """
    try:
        return send()
    except BaseError:
        return send()


@contextmanager
def _foreign() -> Iterator[None]:
    """Turn obstore's errors into OSError."""
    try:
        yield
    except (BaseError, FileNotFoundError, ValueError) as error:
        if _NO_BUCKET.search(str(error)):
            raise OSError("there is no such bucket") from error
        if isinstance(error, FileNotFoundError):
            raise
        raise OSError(_said(error)) from error


def _said(error: Exception) -> str:
    """Return the message of a client's error: one line, the same for the same fault."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    line = re.sub(r" in [0-9.]+[a-zµ]+\b", "", line.partition("<?xml")[0]).strip(" :")
    return line if len(line) <= _MAX_MESSAGE else f"{line[:_MAX_MESSAGE]}..."
