"""Weights made to harm: each is refused with its reason, in little memory.

Every attack comes with a manifest whose digest and size fit it, so that the digest, which
would catch them all, is no help: what is shown here is the reader's own care.
"""

import io
import struct
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from mlpserve_model import CorruptVersion, Manifest, Network, Store, Weights
from mlpserve_model.format.arrays import decode, encode, encode_weights, weight_shapes
from tests.support.forging import Rejection, Seal

Members = list[tuple[str, bytes]]
MEMBERS = ("w1", "b1", "w2", "b2")
HEADER = "{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': {shape}, }}"


def _npy(header: str, data: bytes, magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    return magic + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + data


def _w1(shape: str = "(4, 5)", kind: str = "<f4", fortran: bool = False, data: int = 80) -> bytes:
    return _npy(HEADER.format(kind=kind, fortran=fortran, shape=shape), bytes(data))


def _members(good: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def _zip(members: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there already
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def _with_w1(data: bytes) -> Callable[[bytes], bytes]:
    return lambda good: _zip([("w1.npy", data), *_without_w1(good)])


def _without_w1(good: bytes) -> Members:
    return [member for member in _members(good) if member[0] != "w1.npy"]


def _patched(mark: bytes, offset: int, value: bytes) -> Callable[[bytes], bytes]:
    """The archive with bytes overwritten at an offset from the first such mark."""

    def patch(good: bytes) -> bytes:
        archive = _zip(_members(good))
        at = archive.index(mark) + offset
        return archive[:at] + value + archive[at + len(value) :]

    return patch


def _pickled(good: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w1=np.array([{"any": "thing"}], dtype=object))
    return _zip([*_members(buffer.getvalue()), *_without_w1(good)])


def _with_value(value: float) -> Callable[[bytes], bytes]:
    def change(good: bytes) -> bytes:
        arrays = {name: a.copy() for name, a in decode(good, SHAPES).items()}
        arrays["w1"][1, 2] = value
        return encode(arrays)

    return change


def _many_entries(good: bytes) -> bytes:
    """A directory that claims its one member thousands of times."""
    start, end = good.index(b"PK\1\2"), len(good) - 22
    entries = 80 * good[start : start + 52]
    return good[:start] + entries + good[end : end + 12] + struct.pack(
        "<LLH", len(entries), start, 0
    )  # fmt: skip


def _not_utf8(good: bytes) -> bytes:
    archive = bytearray(_patched(b"PK\1\2", 8, b"\0\x08")(good))  # names are said to be UTF-8
    archive[archive.index(b"PK\1\2") + 46] = 0xFF
    return bytes(archive)


def _zip64_member(good: bytes) -> bytes:
    """A directory entry whose true size, in the zip64 extra field, is an exabyte."""
    archive = bytearray(_zip(_members(good)))
    at, end = archive.index(b"PK\1\2"), len(archive) - 22
    extra = struct.pack("<HHQ", 1, 8, 2**60)
    archive[at + 24 : at + 28] = b"\xff" * 4
    archive[at + 30 : at + 32] = struct.pack("<H", len(extra))
    archive[at + 52 : at + 52] = extra
    size: int = struct.unpack_from("<L", archive, end + len(extra) + 12)[0]
    struct.pack_into("<L", archive, end + len(extra) + 12, size + len(extra))
    return bytes(archive)


def _zip64_end(good: bytes) -> bytes:
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 4, 4, 2**40, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(good) - 22, 1)
    return good[:-22] + record + locator + good[-22:]


SHAPES = weight_shapes(Network((4, 5, 3)))
TERABYTES = HEADER.format(kind="<f4", fortran=False, shape=(2**40, 4))
CODE = "__import__('pathlib').Path('owned').touch()"
ATTACKS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda good: b"", "not a whole .npz"),
    "one byte": (lambda good: b"P", "not a whole .npz"),
    "not a zip": (lambda good: b"<html>404</html>" * 20, "not a whole .npz"),
    "only the end of a zip": (lambda good: good[-22:], "not a whole .npz"),
    "truncated": (lambda good: good[: len(good) // 2], "not a whole .npz"),
    "one byte short": (lambda good: good[:-1], "not a whole .npz"),
    "bytes after the archive": (lambda good: good + b"x", "not a whole .npz"),
    "bytes before the archive": (lambda good: b"#!/bin/sh\n" + good, "not a whole .npz"),
    "too large": (lambda good: good + bytes(2**20), "expected at most 5292"),
    "a directory of many entries": (_many_entries, "a directory of 4160 bytes"),
    "a zip64 end that lies": (_zip64_end, "in zip64"),
    "a zip64 member of an exabyte": (_zip64_member, "claims 1152921504606846976 bytes"),
    "a member that claims 2 GiB": (_patched(b"PK\1\2", 24, b"\0\0\0\x80"), "claims 2147483648"),
    "a directory beyond the file": (_patched(b"PK\5\6", 16, b"\xff" * 4), "not a readable .npz"),
    "a member beyond the file": (_patched(b"PK\1\2", 42, b"\0\0\0\x40"), "not a readable .npz"),
    "another name in the local header": (_patched(b"PK\3\4", 30, b"x9"), "not a readable .npz"),
    "a name that is no UTF-8": (_not_utf8, "not a readable .npz"),
    "a wrong checksum": (_patched(b"PK\1\2", 16, b"\1\2\3\4"), "Bad CRC-32"),
    "the encrypted flag": (_patched(b"PK\1\2", 8, b"\1\0"), "compressed or encrypted"),
    "strong encryption": (_patched(b"PK\1\2", 8, b"\x40\0"), "not a readable .npz"),
    "an unknown compression": (_patched(b"PK\1\2", 10, b"\x63\0"), "compressed or encrypted"),
    "compressed": (lambda good: _zip(_members(good), zipfile.ZIP_DEFLATED), "compressed"),
    "a compressed bomb": (
        lambda good: _zip([("w1.npy", bytes(2**24)), *_without_w1(good)], zipfile.ZIP_DEFLATED),
        "expected at most 5292",
    ),
    "a small compressed bomb": (
        lambda good: _zip([("w1.npy", bytes(2**19)), *_without_w1(good)], zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "no members": (lambda good: b"PK\3\4" + _zip([]), "members []"),
    "a member too few": (lambda good: _zip(_without_w1(good)), "members ['b1.npy', 'b2.npy', 'w2"),
    "a member too many": (lambda good: _zip([*_members(good), ("x.npy", b"")]), "'x.npy']"),
    "a member twice": (lambda good: _zip([*_members(good), ("w1.npy", b"")]), "'w1.npy', 'w1.npy'"),
    "a name that climbs out": (
        lambda good: _zip([("../w1.npy", b""), *_without_w1(good)]), "'../w1.npy'",
    ),
    "a pickled object": (_pickled, "has the header \"{'descr': '|O'"),
    "a pickle instead of an array": (_with_w1(b"\x80\x04}."), "not a .npy array of format 1.0"),
    "a member of nothing": (_with_w1(b""), "not a .npy array"),
    "half a magic": (_with_w1(b"\x93NUMPY"), "not a .npy array"),
    "no header": (_with_w1(b"\x93NUMPY\x01\x00"), "not a readable .npz"),
    "a header beyond the member": (_with_w1(_w1()[:40]), "has the header"),
    "format 2.0": (_with_w1(_npy("", b"", b"\x93NUMPY\x02\x00")), "not a .npy array of format 1.0"),
    "a header that claims terabytes": (_with_w1(_npy(TERABYTES, bytes(80))), "1099511627776"),
    "a header that is code": (_with_w1(_npy(CODE, bytes(80))), "has the header \"__import__"),
    "a header of a terminal's codes": (_with_w1(_npy("\x1b[2J\n", b"")), r"'\x1b[2J"),
    "big-endian": (_with_w1(_w1(kind=">f4")), "'>f4'"),
    "float64": (_with_w1(_w1(kind="<f8", data=160)), "'<f8'"),
    "float16": (_with_w1(_w1(kind="<f2", data=40)), "'<f2'"),
    "integers": (_with_w1(_w1(kind="<i4")), "'<i4'"),
    "Fortran order": (_with_w1(_w1(fortran=True)), "'fortran_order': True"),
    "transposed": (_with_w1(_w1("(5, 4)")), "'shape': (5, 4)"),
    "one dimension": (_with_w1(_w1("(20,)")), "'shape': (20,)"),
    "negative sizes": (_with_w1(_w1("(-4, -5)")), "'shape': (-4, -5)"),
    "bytes after the values": (_with_w1(_w1(data=84)), "holds 84 bytes of data, expected 80"),
    "too few values": (_with_w1(_w1(data=76)), "holds 76 bytes of data, expected 80"),
    "NaN": (_with_value(np.nan), "w1 has values that are not finite"),
    "infinity": (_with_value(np.inf), "w1 has values that are not finite"),
    "another value": (_with_value(2.5), "the self-test is off by"),
    "values that overflow": (_with_value(3e38), "the self-test is off by"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_weights_file_is_rejected_with_its_reason(
    attack: str, published: Manifest, seal: Seal, store: Store, rejection: Rejection
) -> None:
    change, reason = ATTACKS[attack]
    seal("model.npz", change((store.path(1) / "model.npz").read_bytes()))
    assert reason in rejection(lambda: store.load(1))


@pytest.mark.parametrize("attack", ["truncated", "bytes after the archive", "another value"])
def test_without_the_forgers_manifest_the_digest_rejects_it(
    attack: str, published: Manifest, store: Store
) -> None:
    path = store.path(1) / "model.npz"
    path.write_bytes(ATTACKS[attack][0](path.read_bytes()))
    with pytest.raises(CorruptVersion, match=r"expected at most|has the digest|bytes, expected"):
        store.load(1)


@pytest.mark.parametrize("name", ["inputs", "probabilities"])
def test_golden_values_that_are_not_finite_are_rejected(
    name: str, published: Manifest, seal: Seal, store: Store, rejection: Rejection
) -> None:
    shapes = {"inputs": (6, 4), "probabilities": (6, 3)}
    golden = decode((store.path(1) / "golden.npz").read_bytes(), shapes)
    seal("golden.npz", encode(golden | {name: np.full(shapes[name], np.nan, np.float32)}))
    assert f"{name} has values that are not finite" in rejection(lambda: store.load(1))


def test_what_the_attacks_are_made_from_is_accepted(
    published: Manifest, seal: Seal, store: Store, weights: Weights
) -> None:
    manifest = published
    good = (store.path(1) / "model.npz").read_bytes()
    assert good == encode_weights(weights)
    for rebuilt in (_zip(_members(good)), _with_w1(dict(_members(good))["w1.npy"])(good)):
        seal("model.npz", rebuilt)
        assert store.load(1).manifest.network == manifest.network
