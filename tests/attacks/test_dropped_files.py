"""What may be put into a drop folder by anybody: no file ends a training or reaches beyond it."""

import io
import os
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlpserve_trainer import DataError
from mlpserve_trainer.datasets import Dataset
from mlpserve_trainer.datasets.drop_folder import read_drops
from mlpserve_trainer.datasets.npz import read_npz
from tests.support.logs import fields_of

ROWS = Dataset(
    "rows",
    np.arange(64, dtype=np.uint8).reshape(4, 4, 4),
    np.array([0, 1, 0, 1]),
    ("cat", "dog"),
    255,
)


def npy(header: str | bytes, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """An array with this header, whatever it says."""
    header = header.encode("latin-1") if isinstance(header, str) else header
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header + data


def archive(method: int = zipfile.ZIP_STORED, /, **arrays: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in arrays.items():
            file.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def header(descr: str, shape: object, order: object = False) -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n"


Y = npy(header("<U3", (3,)), np.array(["cat", "dog", "cat"]).tobytes())
X = npy(header("|u1", (3, 4, 4)), bytes(48))
DEEP = "(" * 3000

GREAT: dict[str, bytes] = {f"{number:0>200}": b"" for number in range(5000)}

# Made when they are needed: some take a second.
HOSTILE: dict[str, Callable[[], bytes]] = {
    # Each of these ended a training: NumPy evaluates headers, and fails in its tokenizer, its
    # parser, its arithmetic and its imports.
    "open bracket": lambda: archive(X=npy("{'descr': '|u1', 'shape': (3, 4"), y=Y),
    "null byte": lambda: archive(X=npy("{'descr': '\0'}"), y=Y),
    "not a header": lambda: archive(X=npy("print(1)\n"), y=Y),
    "deep header": lambda: archive(X=npy(DEEP), y=Y),
    "text": lambda: archive(X=b"x\n", y=Y),
    "empty member": lambda: archive(X=b"", y=Y),
    "huge shape": lambda: archive(X=npy(header("|u1", (2**62, 2**62))), y=Y),
    "shape beyond 64 bits": lambda: archive(X=npy(header("|u1", (10**30,))), y=Y),
    "negative shape": lambda: archive(X=npy(header("|u1", (-3, 4, 4))), y=Y),
    "shape of words": lambda: archive(X=npy(header("|u1", "('3', 4, 4)")), y=Y),
    "many dimensions": lambda: archive(X=npy(header("|u1", (1,) * 100), bytes(1)), y=Y),
    "slow header": lambda: archive(X=npy(header("|u1", f"({'1' * 4000}")), y=Y),
    "long header": lambda: archive(X=npy(b" " * 2**20, version=b"\2\0"), y=Y),
    "header that ends early": lambda: archive(X=b"\x93NUMPY\1\0\xff\xff{", y=Y),
    "unknown version": lambda: archive(X=npy(header("|u1", (3, 4, 4)), bytes(48), b"\7\0"), y=Y),
    "unknown type": lambda: archive(X=npy(header("<q9", (3, 4, 4)), bytes(48)), y=Y),
    "large type": lambda: archive(X=npy(header("<U999999", (3, 4, 4)), bytes(48)), y=Y),
    "structure": lambda: archive(
        X=npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}")
    ),
    "objects": lambda: archive(X=npy(header("|O", (3,)), b"cos\nsystem\n(S'id'\ntR."), y=Y),
    "empty strings": lambda: archive(X=npy(header("<U0", (3, 4, 4))), y=Y),
    "fewer bytes than claimed": lambda: archive(X=npy(header("|u1", (3, 4, 4)), bytes(47)), y=Y),
    "more bytes than claimed": lambda: archive(X=npy(header("|u1", (3, 4, 4)), bytes(49)), y=Y),
    "lzma": lambda: archive(zipfile.ZIP_LZMA, X=X, y=Y),
    "bzip2": lambda: archive(zipfile.ZIP_BZIP2, X=X, y=Y),
    "labels beyond Unicode": lambda: archive(X=X, y=npy(header("<U1", (3,)), b"\xff" * 12)),
    "half a character": lambda: archive(
        X=X, y=npy(header("<U1", (3,)), struct.pack("<3I", *[0xD800] * 3))
    ),
    "no maximum": lambda: archive(
        X=X, y=Y, maximum=npy(header("<f8", ()), struct.pack("<d", np.nan))
    ),
    "many maxima": lambda: archive(
        zipfile.ZIP_DEFLATED, X=X, y=Y, maximum=npy(header("|u1", (2**26,)), bytes(2**26))
    ),
    "great directory": lambda: archive(X=X, y=Y, **GREAT),
}


def drop(folder: Path, name: str, data: bytes) -> Path:
    """Put a file into the folder, as if an hour ago."""
    path = folder / name
    path.write_bytes(data)
    at = time.time() - 3600
    os.utime(path, (at, at))
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_moved_aside_and_the_others_are_used(tmp_path: Path, name: str) -> None:
    drop(tmp_path, "bad.npz", HOSTILE[name]())
    drop(tmp_path, "good.npz", archive(X=X, y=Y))
    assert [file.name for file in read_drops(tmp_path, ROWS)] == ["good.npz"]
    assert (tmp_path / ".rejected/bad.npz").exists()
    assert (tmp_path / ".rejected/bad.npz.reason.txt").read_text()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_that_the_user_named_is_a_clear_error(tmp_path: Path, name: str) -> None:
    path = drop(tmp_path, "bad.npz", HOSTILE[name]())
    with pytest.raises(DataError, match=r"bad\.npz"):
        read_npz(path)


def bomb(rows: int, shape: str = "4, 4") -> bytes:
    """A file of a few hundred KiB that is `rows` times 16 bytes, inflated."""
    data = npy(header("|u1", f"({rows}, {shape})")) + bytes(16 * rows)
    return archive(zipfile.ZIP_DEFLATED, X=data, y=npy(header("|u1", (rows,)), bytes(rows)))


@pytest.mark.parametrize("shape", ["4, 4", "16"], ids=["too many", "of another shape"])
def test_a_small_file_of_a_great_many_zeros_is_refused_before_it_is_inflated(
    tmp_path: Path, shape: str
) -> None:
    path = drop(tmp_path, "bomb.npz", bomb(2**22, shape))
    assert path.stat().st_size < 2**18
    tracemalloc.start()
    assert read_drops(tmp_path, ROWS, limit=2**24) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
    assert (tmp_path / ".rejected/bomb.npz").exists()


def test_values_are_inflated_in_pieces_and_kept_in_one_byte_each(tmp_path: Path) -> None:
    values = np.zeros((2**17, 4, 4), "<f8")  # 16 MiB as they are written, 2 as they are kept
    values[0] = 2
    np.savez_compressed(tmp_path / "large.npz", X=values, y=np.resize([0, 1], 2**17))
    del values
    tracemalloc.start()
    rows = read_npz(tmp_path / "large.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.inputs.dtype == np.uint8
    # The values as float32, their wholeness, and some pieces of 4 MiB.
    assert peak < 8 * 2**20 + 2**20 + 20 * 2**20


def test_a_new_file_does_not_push_older_ones_out_of_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drop(tmp_path, "b.npz", archive(X=X, y=Y))
    os.utime(drop(tmp_path, "a.npz", bomb(100)), (time.time() - 60,) * 2)
    names = [file.name for file in read_drops(tmp_path, ROWS, limit=1800)]
    assert names == ["b.npz"]
    (left,) = fields_of(caplog, "file left for the next training")
    assert "1700 bytes beside the other rows" in str(left)
    assert (tmp_path / "a.npz").exists()


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    """A file outside of the drop folder that the trainer may write."""
    path = tmp_path / "aliases.json"
    path.write_text("precious")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


@pytest.mark.parametrize("name", ["foo.npz", "foo.npz.reason.txt", ".foo.npz.reason.txt.tmp"])
def test_the_reason_is_never_written_through_a_link(
    folder: Path, treasure: Path, name: str
) -> None:
    (folder / ".rejected").mkdir()
    (folder / ".rejected" / name).symlink_to(treasure)
    pid = f".foo.npz.reason.txt.{os.getpid()}.tmp"
    (folder / ".rejected" / pid).symlink_to(treasure)
    drop(folder, "foo.npz", b"garbage")
    assert read_drops(folder, ROWS) == []
    assert treasure.read_text() == "precious"
    assert not (folder / "foo.npz").exists()


def test_files_are_not_moved_through_a_linked_folder(folder: Path, treasure: Path) -> None:
    (folder / ".rejected").symlink_to(treasure.parent)
    drop(folder, "foo.npz", b"garbage")
    assert read_drops(folder, ROWS) == []
    assert sorted(path.name for path in treasure.parent.iterdir()) == ["aliases.json", "drop"]


@pytest.mark.parametrize("target", ["good.npz", "nowhere", "/dev/zero"])
def test_a_linked_file_is_not_followed_but_moved_aside(
    tmp_path: Path, folder: Path, target: str
) -> None:
    drop(tmp_path, "good.npz", archive(X=X, y=Y))
    (folder / "foo.npz").symlink_to(tmp_path / target)
    at = time.time() - 3600
    os.utime(folder / "foo.npz", (at, at), follow_symlinks=False)
    assert read_drops(folder, ROWS) == []
    assert (folder / ".rejected/foo.npz").is_symlink()
    note = (folder / ".rejected/foo.npz.reason.txt").read_text()
    assert "is not a regular file but a symbolic link" in note


@pytest.mark.parametrize("name", [b"caf\xe9.npz", b"a\nb\x1b[31m.npz", b"n" * 251 + b".npz"])
def test_a_file_with_any_name_is_moved_aside(folder: Path, name: bytes) -> None:
    drop(folder, os.fsdecode(name), b"garbage")
    assert read_drops(folder, ROWS) == []
    assert sorted(path.name for path in folder.iterdir()) == [".rejected"]
    assert len(list((folder / ".rejected").iterdir())) == 2


def _whole(method: int) -> bytes:
    return archive(method, X=X, y=Y, maximum=npy(header("|u1", ()), b"\x10"))


WHOLE = [_whole(zipfile.ZIP_STORED), _whole(zipfile.ZIP_DEFLATED)]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A file that was whole: some bytes replaced, removed, repeated or put in."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        count = draw(st.integers(0, 8))
        filling = draw(st.one_of(st.binary(max_size=8), st.just(bytes(data[:place]))))
        data[place : place + count] = filling
    return bytes(data)


@st.composite
def with_any_header(draw: st.DrawFn) -> bytes:
    """A whole archive whose array says anything of itself."""
    text = bytearray(header("|u1", (3, 4, 4)).encode())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text)))
        text[place : place + draw(st.integers(0, 6))] = draw(
            st.sampled_from([b"", b"(", b"'", b"{", b"9" * 18, b",", b"-1", b"\0", b"L", b"<U9"])
        )
    return archive(X=npy(bytes(text), bytes(48)), y=Y)


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.one_of(mutated(), with_any_header()))
def test_whatever_a_file_holds_it_is_rows_or_a_clear_error(tmp_path: Path, data: bytes) -> None:
    path = drop(tmp_path, "any.npz", data)
    with suppress(DataError):
        rows = read_npz(path)
        assert len(rows.inputs) == len(rows.inputs.reshape(len(rows.inputs), -1))
    for dropped in read_drops(tmp_path, ROWS):
        assert dropped.inputs.shape[1:] == (4, 4)
        assert set(dropped.labels.tolist()) <= {0, 1}


def test_the_checksums_of_inflated_values_are_compared(tmp_path: Path) -> None:
    data = bytearray(archive(X=X, y=Y))
    place = data.index(X) + len(X) - 1
    data[place] ^= 1
    assert zlib.crc32(bytes(data)) != zlib.crc32(archive(X=X, y=Y))
    with pytest.raises(DataError, match="CRC"):
        read_npz(drop(tmp_path, "bad.npz", bytes(data)))
