"""The store's files, and the settings that every program reads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from unittest.mock import patch

from mlpserve_model import CorruptVersion, Network, StoreError
from mlpserve_model.format import arrays, strict_json
from mlpserve_model.format.manifest import encode_manifest
from mlpserve_model.format.manifest_reader import read_manifest
from mlpserve_model.format.records import decode_aliases, decode_events, encode_event
from mlpserve_model.process.arguments import PREFIX
from mlpserve_model.store.evidence.records import CorruptRecord, decode_report, encode_report
from mlpserve_model.store.location import parse_location
from tests.fuzz.target import split, target

__all__ = ["as_settings"]

NETWORK = Network((3, 2, 2))


@target(CorruptVersion)
def manifest(data: bytes) -> None:
    read = read_manifest(data)
    document = encode_manifest(
        read,
        read.gate,
        read.files,
        version=read.version,
        created=read.created,
        golden_rows=read.golden_rows,
    )
    assert replace(read_manifest(document), document=data) == read


@target(CorruptVersion)
def weights(data: bytes) -> None:
    read = arrays.decode_weights(data, NETWORK)
    assert arrays.decode_weights(arrays.encode_weights(read), NETWORK)


@target(ValueError)
def aliases(data: bytes) -> None:
    for alias, version in decode_aliases(data).items():
        assert alias.isascii()
        assert version >= 1


@target()
def history(data: bytes) -> None:
    for event in decode_events(data):
        assert b"\n" not in encode_event(event)


@target(ValueError)
def json(data: bytes) -> None:
    strict_json.parse(data)


@target(CorruptRecord)
def report(data: bytes) -> None:
    read = decode_report(data)
    again = decode_report(encode_report(read))
    assert replace(again, instance=None) == replace(read, instance=None)
    assert (again.instance is None) == (read.instance is None)


@target(UnicodeDecodeError, StoreError)
def location(data: bytes) -> None:
    place = parse_location(data.decode())
    assert parse_location(str(place)) == place


@contextmanager
def as_settings(data: bytes) -> Iterator[list[str]]:
    """The flags of an input, one a line, with the variables (NAME=value) of its second part set.

    A program's output is swallowed, and it may end with no exit code but 0 and 2.
    """
    flags, variables = (part.decode().replace("\0", "") for part in split(data, 2))
    named = (line.partition("=") for line in variables.splitlines())
    own = {PREFIX + name: value for name, mark, value in named if mark and name.isidentifier()}
    try:
        with patch.dict(os.environ, own), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield flags.splitlines()
    except SystemExit as end:
        if end.code not in (0, 2):
            raise AssertionError(f"exit code {end.code}") from end
