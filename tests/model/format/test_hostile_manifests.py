"""Manifests and folders made to harm: each is refused with its reason, in little memory."""

import errno
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from mlpserve_model import CorruptVersion, Manifest, Store, StoreError, VersionNotFound
from mlpserve_model.format.manifest_reader import read_manifest
from tests.support.faults import fail_at
from tests.support.forging import EditManifest, Publish, Rejection, forget_digests

Document = dict[str, Any]
HASH = "0" * 64


def _set(path: str, value: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        *folders, name = path.split("/")
        for folder in folders:
            document = document[folder]
        document[name] = value

    return change


def _odd_file(name: str) -> Callable[[Document], None]:
    return lambda document: document["files"].update({name: {"sha256": HASH, "size": 1}})


LIES: dict[str, tuple[Callable[[Document], object], str]] = {
    "an unknown format": (_set("format", 3), "format 3 is unknown: this release reads 1 and 2"),
    "a format of zero": (_set("format", 0), "format is 0"),
    "a format that is true": (_set("format", True), "format is True, expected an integer"),
    "a format in words": (_set("format", "1"), "format is '1', expected an integer"),
    "another version": (_set("version", 2), "that of tiny version 2, expected tiny version 1"),
    "another model": (_set("model", "huge"), "that of huge version 1, expected tiny version 1"),
    "a model that is a path": (_set("model", "../tiny"), "model is '../tiny', expected text"),
    "a version of zero": (_set("version", 0), "version is 0, expected an integer from 1"),
    "a fraction of a version": (_set("version", 1.5), "version is 1.5, expected an integer"),
    "a version without end": (_set("version", 10**4000), "expected an integer from 1 to"),
    "another digest": (_set("files/model.npz/sha256", HASH), f"expected {HASH}"),
    "another digest of golden.npz": (_set("files/golden.npz/sha256", HASH), f"expected {HASH}"),
    "a digest too short": (_set("files/model.npz/sha256", "0" * 63), "expected text that matches"),
    "a digest in capitals": (_set("files/model.npz/sha256", "A" * 64), "expected text that match"),
    "a size too large": (_set("files/model.npz/size", 10**15), "bytes, expected 1000000000000000"),
    "a size too small": (_set("files/model.npz/size", 10), "bytes, expected at most 10"),
    "a negative size": (_set("files/model.npz/size", -1), "size is -1"),
    "a file that is a number": (_set("files/model.npz", 1), "expected an object with sha256"),
    "no model.npz": (lambda d: d["files"].pop("model.npz"), "lists no model.npz"),
    "no golden.npz": (lambda d: d["files"].pop("golden.npz"), "lists no golden.npz"),
    "a file outside": (_odd_file("../../x.npz"), "expected names that match"),
    "an absolute file": (_odd_file("/etc/passwd"), "expected names that match"),
    "a file that is a folder": (_odd_file(".."), "expected names that match"),
    "a file with a NUL": (_odd_file("a.b\0"), "expected names that match"),
    "a file with a newline": (_odd_file("a.b\n"), "expected names that match"),
    "itself among the files": (_odd_file("manifest.json"), "expected names that match"),
    "a class twice": (_set("class_names", ["a", "b", "a"]), "expected 3 different names"),
    "a class without a name": (_set("class_names", ["a", "b", ""]), "expected 3 different names"),
    "a class too few": (_set("class_names", ["a", "b"]), "expected 3 different names"),
    "a class that is a number": (_set("class_names", ["a", "b", 3]), "expected a list of strings"),
    "values without a kind": (_set("input/values", {"low": 0, "high": 1}), "no input.values.kind"),
    "values without an end": (
        _set("input/values", {"kind": "raw", "low": 0}),
        "no input.values.hi",
    ),
    "values of no kind": (_set("input/values", [0, 1]), "no input.values"),
    "half a character": (_set("class_names", ["a", "b", "\ud800"]), "half of a surrogate pair"),
    "huge layers": (_set("layer_sizes", [2**20, 2**20]), "expected at most 67108864 parameters"),
    "layers without end": (_set("layer_sizes", [10**4000, 3]), "at most 67108864 parameters"),
    "too many layers": (_set("layer_sizes", [4] * 65), "expected 1 to 64 integers >= 1"),
    "one layer": (_set("layer_sizes", [4]), "two or more sizes"),
    "an empty layer": (_set("layer_sizes", [4, 0, 3]), "expected 1 to 64 integers >= 1"),
    "a layer that is true": (_set("layer_sizes", [4, True, 3]), "expected 1 to 64 integers >= 1"),
    "layers that are an object": (_set("layer_sizes", {"4": 3}), "expected a list"),
    "other layers": (_set("layer_sizes", [4, 6, 3]), "has the header"),
    "fewer layers": (_set("layer_sizes", [4, 3]), "expected ['b1.npy', 'w1.npy']"),
    "an unknown activation": (
        _set("hidden_activation", "swish"),
        "expected one of relu, sigmoid, tanh",
    ),
    "another activation": (_set("hidden_activation", "sigmoid"), "the self-test is off by"),
    "another output": (_set("output_activation", "sigmoid"), "the self-test is off by"),
    "another shape": (_set("input/shape", [2, 3]), "expected a product of 4"),
    "no shape": (_set("input/shape", []), "expected 1 to 64 integers"),
    "a maximum of zero": (_set("input/maximum", 0), "expected above 0 and at most 255"),
    "a maximum of 256": (_set("input/maximum", 256), "expected above 0 and at most 255"),
    "a maximum without end": (_set("input/maximum", 10**400), "expected a finite number"),
    "a maximum in words": (_set("input/maximum", "16"), "expected a finite number"),
    "an input that is a list": (_set("input", [2, 2]), "has no input.shape"),
    "no golden rows": (_set("golden_rows", 0), "golden_rows is 0"),
    "many golden rows": (_set("golden_rows", 1025), "expected an integer from 1 to 1024"),
    "other golden rows": (_set("golden_rows", 5), "has the header"),
    "a self-test of gigabytes": (
        lambda d: d.update(
            golden_rows=1024,
            layer_sizes=[2**24, 1, 3],
            input={"shape": [2**24], "maximum": 1},
        ),
        "golden_rows is 1024, expected at most 4 for these layers",
    ),
    "a time without a zone": (_set("created", "2026-01-01T00:00:00"), "offset from UTC"),
    "a time in words": (_set("created", "yesterday"), "expected an ISO 8601 time"),
    "a time before all time": (_set("created", "0001-01-01T00:00+23:59"), "an ISO 8601 time"),
    "a metric in words": (_set("metrics/accuracy", "high"), "metrics['accuracy'] is 'high'"),
    "a metric without end": (_set("metrics/accuracy", 10**400), "expected a finite number"),
    "a metric that forges a line": (_set("metrics/a\nb", None), r"metrics['a\nb'] is None"),
    "metrics that are a list": (_set("metrics", []), "metrics is [], expected a dict"),
    "an unknown verdict": (_set("gate/verdict", "FINE"), "expected one of PROMOTED, REJECTED"),
    "a negative seed": (_set("seed", -1), "seed is -1"),
    "libraries that are a list": (_set("libraries", []), "libraries is [], expected a dict"),
    "a recipe in words": (_set("recipe", "quick"), "recipe is 'quick', expected a dict"),
    "a very long text": (_set("model", "x" * 10**5), "..., expected text that matches"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_rejected_with_its_reason(
    lie: str, published: Manifest, edit_manifest: EditManifest, store: Store, rejection: Rejection
) -> None:
    change, reason = LIES[lie]
    edit_manifest(change)
    message = rejection(lambda: store.load(1))
    assert reason in message
    assert len(message) < 500
    assert message.isprintable()


def _nested(depth: int) -> bytes:
    return b'{"format": ' + b"[" * depth + b"]" * depth + b"}"


TEXTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda good: b"", "is not JSON"),
    "truncated": (lambda good: good[:200], "is not JSON"),
    "two documents": (lambda good: good + good, "is not JSON"),
    "a list": (lambda good: b"[" + good + b"]", "has no format"),
    "null": (lambda good: b"null", "has no format"),
    "NaN": (lambda good: good.replace(b"0.75", b"NaN"), "NaN is not a JSON number"),
    "Infinity": (lambda good: good.replace(b"0.75", b"-Infinity"), "-Infinity is not a JSON"),
    "a number beyond floats": (lambda good: good.replace(b"0.1", b"1e999"), "is not JSON"),
    "a number of 5,000 digits": (lambda good: good.replace(b"0.75", b"1" * 5000), "5000 digits"),
    "nested a little": (lambda good: _nested(40), "nested deeper than 32 levels"),
    "nested deeply": (lambda good: _nested(100_000), "nested deeper than 32 levels"),
    "a key twice": (lambda good: good.replace(b'"seed"', b'"seed": 8, "seed"'), "is repeated"),
    "a key twice within": (lambda good: good.replace(b'"ep', b'"a": 1, "a": 2, "ep'), "'a' is rep"),
    "UTF-16": (lambda good: good.decode().encode("utf-16"), "is not JSON"),
    "a byte order mark": (lambda good: b"\xef\xbb\xbf" + good, "is not JSON"),
    "no UTF-8": (lambda good: good.replace(b"ash", b"\xff\xfe"), "is not JSON"),
    "more than a mebibyte": (lambda good: good + b" " * 2**20, "expected at most 1048576"),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_manifest_that_is_no_plain_json_is_rejected(
    text: str, published: Manifest, store: Store, rejection: Rejection
) -> None:
    change, reason = TEXTS[text]
    path = store.path(1) / "manifest.json"
    path.write_bytes(change(path.read_bytes()))
    assert reason in rejection(lambda: store.load(1))


def test_a_manifest_that_lacks_any_field_is_rejected(published: Manifest) -> None:
    whole = json.loads(published.document)
    for field in whole:
        lacking = {key: value for key, value in whole.items() if key != field}
        with pytest.raises(CorruptVersion, match=f"has no {field}|lists no {field}"):
            read_manifest(json.dumps(lacking).encode())


@pytest.mark.parametrize("depth", [1, 29, 30, *range(50, 1000, 50)])
def test_any_depth_is_read_whole_or_rejected(depth: int, published: Manifest, store: Store) -> None:
    path = store.path(1) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"epochs": 3', b'"e": ' + _nested(depth)))
    forget_digests(store)
    if depth > 29:
        with pytest.raises(CorruptVersion, match="nested deeper"):
            store.load(1)
    else:
        assert store.load(1).manifest.document


@pytest.mark.parametrize("name", ["model.npz", "golden.npz"])
def test_a_missing_file_is_rejected(
    name: str, published: Manifest, store: Store, rejection: Rejection
) -> None:
    (store.path(1) / name).unlink()
    assert rejection(lambda: store.load(1)) == f"{name} is missing"


@pytest.mark.parametrize("name", ["model.npz", "golden.npz", "manifest.json"])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_regular_file_is_rejected_without_waiting(
    kind: str, name: str, published: Manifest, store: Store, rejection: Rejection
) -> None:
    path = store.path(1) / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    shown = {"folder": "a folder", "pipe": "a FIFO"}[kind]
    assert rejection(lambda: store.load(1)) == f"{name} is not a regular file but {shown}"


@pytest.mark.parametrize("name", ["model.npz", "golden.npz", "manifest.json"])
def test_a_file_of_a_terabyte_is_rejected_unread(
    name: str, published: Manifest, edit_manifest: EditManifest, store: Store, rejection: Rejection
) -> None:
    if name != "manifest.json":
        edit_manifest(_set(f"files/{name}/size", 2**40))
    os.truncate(store.path(1) / name, 2**40)  # sparse: it takes no room
    assert "has 1099511627776 bytes, expected at most" in rejection(lambda: store.load(1))


def test_the_files_of_another_version_are_rejected(publish: Publish, store: Store) -> None:
    publish(seed=1)
    publish(seed=2)
    for name in ("model.npz", "golden.npz"):
        kept = (store.path(1) / name).read_bytes()
        (store.path(1) / name).write_bytes((store.path(2) / name).read_bytes())
        with pytest.raises(CorruptVersion, match=f"{name} has the digest"):
            store.load(1)
        (store.path(1) / name).write_bytes(kept)
    (store.path(1) / "manifest.json").write_bytes((store.path(2) / "manifest.json").read_bytes())
    with pytest.raises(CorruptVersion, match="that of tiny version 2"):
        store.load(1)


def test_a_version_that_is_not_there_is_not_found(store: Store, published: Manifest) -> None:
    for version in (2, 0, -1):
        with pytest.raises(VersionNotFound, match=f"tiny has no version {version}"):
            store.load(version)


def test_a_volume_that_cannot_be_read_says_nothing_about_the_version(
    store: Store, published: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, store.path(1) / "manifest.json", errno.EIO)
    with pytest.raises(StoreError, match=r"cannot read .*manifest.json") as caught:
        store.load(1)
    assert not isinstance(caught.value, CorruptVersion | VersionNotFound)
