import errno
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_trainer import DataError
from mlpserve_trainer.datasets import Dataset, drop_folder
from mlpserve_trainer.datasets.drop_folder import read_drops
from tests.support.logs import fields_of

Put = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "drop").mkdir()
    return tmp_path / "drop"


@pytest.fixture
def put(folder: Path) -> Put:
    """Put a file of rows into the folder, as if long ago."""

    def put(name: str, rows: int = 3, age: float = 3600, **arrays: Any) -> Path:
        path = folder / name
        given = {"X": np.full((rows, 4, 4), len(name), np.uint8), "y": ["a"] * rows} | arrays
        with path.open("wb") as file:
            np.savez(file, **{key: np.array(value) for key, value in given.items()})  # type: ignore[arg-type]  # its keyword
        return aged(path, age)

    return put


def aged(path: Path, seconds: float = 3600) -> Path:
    at = time.time() - seconds
    os.utime(path, (at, at))
    return path


def names(folder: Path, first: Dataset) -> list[str]:
    return sorted(drop.name for drop in read_drops(folder, first))


def reason(folder: Path, name: str) -> str:
    """Why a file was moved aside."""
    assert not (folder / name).exists()
    assert (folder / ".rejected" / name).exists()
    return (folder / ".rejected" / f"{name}.reason.txt").read_text()


def test_an_empty_folder_has_nothing_new(folder: Path, stripes: Dataset) -> None:
    assert read_drops(folder, stripes) == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, stripes: Dataset) -> None:
    with pytest.raises(DataError, match="nowhere cannot be read: No such file or directory"):
        read_drops(tmp_path / "nowhere", stripes)


def test_every_file_that_fits_is_taken(folder: Path, put: Put, stripes: Dataset) -> None:
    put("one.npz", y=["c", "a", "b"])
    put("two.NPZ", rows=2)
    drops = read_drops(folder, stripes)
    assert sorted(drop.name for drop in drops) == ["one.npz", "two.NPZ"]
    (one,) = [drop for drop in drops if drop.name == "one.npz"]
    assert one.labels.tolist() == [2, 0, 1]
    assert one.inputs.dtype == np.uint8
    assert not (folder / ".rejected").exists()


def test_other_names_do_not_make_other_data(folder: Path, put: Put, stripes: Dataset) -> None:
    put("one.npz")
    put("second.npz")
    before = [drop.sha256 for drop in read_drops(folder, stripes)]
    (folder / "one.npz").rename(folder / "z.npz")
    assert [drop.sha256 for drop in read_drops(folder, stripes)] == before


def test_a_file_that_is_there_twice_counts_once(folder: Path, put: Put, stripes: Dataset) -> None:
    (folder / "copy.npz").write_bytes(put("one.npz").read_bytes())
    assert names(folder, stripes) == ["one.npz"]


def test_a_number_may_name_a_class(folder: Path, put: Put, stripes: Dataset) -> None:
    put("one.npz", y=[7, 9, 7])
    (drop,) = read_drops(folder, replace(stripes, class_names=("7", "8", "9")))
    assert drop.labels.tolist() == [0, 2, 0]


def test_the_maximum_is_the_first_sources_where_the_file_has_none(
    folder: Path, put: Put, stripes: Dataset
) -> None:
    sixteen = replace(stripes, inputs=stripes.inputs // 16, input_maximum=16)
    put("fits.npz", X=np.full((3, 4, 4), 16))
    put("exceeds.npz", X=np.full((3, 4, 4), 17))
    assert names(folder, sixteen) == ["fits.npz"]
    assert "whole numbers in X from 0 to 16, got 17 to 17" in reason(folder, "exceeds.npz")


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"X": np.zeros((3, 5, 5), np.uint8)}, r"expected rows of shape (4, 4), as stripes has"),
        ({"X": np.zeros((3, 16), np.uint8)}, "got X of shape (3, 16)"),
        ({"X": np.zeros((2, 4, 4), np.uint8)}, "expected a label for each row, got 2 rows and 3"),
        ({"X": np.zeros((0, 4, 4), np.uint8), "y": np.zeros(0, int)}, "got 0 rows"),
        ({"X": np.uint8(5)}, "got X of shape ()"),
        ({"X": np.full((3, 4, 4), 0.5)}, "expected whole numbers from 0 to 255 in X"),
        ({"X": np.full((3, 4, 4), np.nan)}, "expected whole numbers from 0 to 255 in X"),
        ({"X": np.full((3, 4, 4), 300)}, "from 0 to 255, got 300 to 300"),
        ({"X": np.full((3, 4, 4), "a")}, "expected numbers in X"),
        ({"maximum": 16}, "expected maximum 255, as stripes has, got 16"),
        ({"y": ["a", "x", "b"]}, "unknown labels 'x'; the classes are 'a', 'b', 'c'"),
        ({"y": [0, 1, 2]}, "unknown labels '0', '1', '2'"),
        ({"y": [[0], [1], [2]]}, "expected y as one column"),
        ({"y": [0.5, 1, 2]}, "expected y as one column of integers or strings"),
    ],
)
def test_what_does_not_fit_is_moved_aside_with_the_reason(
    folder: Path, put: Put, stripes: Dataset, arrays: dict[str, Any], expected: str
) -> None:
    put("good.npz")
    put("bad.npz", **arrays)
    assert names(folder, stripes) == ["good.npz"]
    assert expected in reason(folder, "bad.npz")


def test_missing_arrays_are_named(folder: Path, stripes: Dataset) -> None:
    np.savez(folder / "bad.npz", images=np.zeros((3, 4, 4)))
    aged(folder / "bad.npz")
    assert names(folder, stripes) == []
    assert "expected arrays X and y, found images" in reason(folder, "bad.npz")


def test_a_pickle_is_never_loaded(folder: Path, put: Put, stripes: Dataset) -> None:
    put("bad.npz", y=np.array(["a", None, "b"], dtype=object))
    assert names(folder, stripes) == []
    assert "labels as integers or numpy strings" in reason(folder, "bad.npz")


def test_a_folder_with_the_name_of_a_file_is_moved_aside(folder: Path, stripes: Dataset) -> None:
    (folder / "bad.npz").mkdir()
    aged(folder / "bad.npz")
    assert names(folder, stripes) == []
    assert "is not a regular file but a folder" in reason(folder, "bad.npz")


def test_a_pipe_keeps_nobody_waiting(folder: Path, stripes: Dataset) -> None:
    os.mkfifo(folder / "bad.npz")
    aged(folder / "bad.npz")
    assert names(folder, stripes) == []
    assert "is not a regular file but a FIFO" in reason(folder, "bad.npz")


def test_a_second_bad_file_of_the_same_name_is_kept_too(
    folder: Path, put: Put, stripes: Dataset
) -> None:
    for label in ("x", "y", "z"):
        put("bad.npz", y=[label] * 3)
        assert names(folder, stripes) == []
    aside = sorted(path.name for path in (folder / ".rejected").iterdir())
    assert aside == [
        *("bad-2.npz", "bad-2.npz.reason.txt", "bad-3.npz", "bad-3.npz.reason.txt"),
        *("bad.npz", "bad.npz.reason.txt"),
    ]
    assert "'z'" in (folder / ".rejected/bad-3.npz.reason.txt").read_text()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let the folder be one that cannot be written, root or not."""
    # From inside: above it are folders that only their owner may enter.
    root = os.geteuid() == 0
    before = Path.cwd()
    os.chdir(folder)
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        os.chdir(before)


def test_where_nothing_can_be_moved_it_says_so_and_goes_on(
    put: Put, folder: Path, stripes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    put("good.npz")
    put("bad.npz", y=["x"] * 3)
    with read_only(folder):
        assert names(Path(), stripes) == ["good.npz"]
    expected = {"file": "bad.npz", "reason": "Permission denied"}
    assert fields_of(caplog, "file cannot be moved aside") == [expected]
    assert (folder / "bad.npz").exists()


def test_without_a_place_to_move_it_to_it_says_so_and_goes_on(
    folder: Path, put: Put, stripes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    put("good.npz")
    put("bad.npz", y=["x"] * 3)
    (folder / ".rejected").write_text("a file")
    assert names(folder, stripes) == ["good.npz"]
    assert [fields["file"] for fields in fields_of(caplog, "file left out")] == ["bad.npz"]
    (moved,) = fields_of(caplog, "file cannot be moved aside")
    assert (Path(moved["file"]).name, moved["reason"]) == ("bad.npz", "Not a directory")
    assert (folder / "bad.npz").exists()


def test_hidden_files_and_other_names_are_left_alone(
    folder: Path, put: Put, stripes: Dataset
) -> None:
    put(".half.npz", y=["x"] * 3)
    put("half.npz.tmp", y=["x"] * 3)
    assert names(folder, stripes) == []
    assert (folder / ".half.npz").exists()
    assert (folder / "half.npz.tmp").exists()


def test_half_a_file_is_left_until_it_is_whole(
    folder: Path, put: Put, stripes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    path = put("slow.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    aged(path, 30)
    assert names(folder, stripes) == []
    (left,) = fields_of(caplog, "file left for the next training")
    assert (Path(left["file"]).name, left["reason"]) == ("slow.npz", "is not whole yet")
    path.write_bytes(whole)
    aged(path, 30)
    assert names(folder, stripes) == ["slow.npz"]


def test_half_a_file_that_nobody_finishes_is_moved_aside(
    folder: Path, put: Put, stripes: Dataset
) -> None:
    path = put("half.npz")
    path.write_bytes(path.read_bytes()[:100])
    aged(path)
    assert names(folder, stripes) == []
    assert "cannot be read as .npz: File is not a zip file" in reason(folder, "half.npz")


def test_a_file_that_is_no_archive_at_all_is_told_apart_in_plain_words(
    folder: Path, stripes: Dataset
) -> None:
    (folder / "notes.npz").write_text("X,y\n1,2\n")
    aged(folder / "notes.npz")
    assert names(folder, stripes) == []
    text = reason(folder, "notes.npz")
    assert "File is not a zip file, or not a whole one; write it with numpy.savez" in text
    assert "pickle" not in text


def test_a_file_that_is_still_written_to_is_left_for_the_next_time(
    folder: Path, put: Put, stripes: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    put("good.npz")
    path = put("growing.npz", age=0)
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.05):
            with path.open("ab") as file:
                file.write(b"more")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert names(folder, stripes) == ["good.npz"]
    finally:
        done.set()
        writer.join()
    (left,) = fields_of(caplog, "file left for the next training")
    assert (Path(left["file"]).name, left["reason"]) == ("growing.npz", "is being written")
    assert path.exists()


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_file_that_is_put_right_while_it_is_read_is_left_for_the_next_time(
    folder: Path, put: Put, stripes: Dataset, is_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, right = put("rows.npz", X=np.zeros((3, 5, 5), np.uint8)), put("right.tmp")
    if not is_whole:
        bad.write_bytes(bad.read_bytes()[:100])
        aged(bad)
    read = drop_folder._sha256

    def replaced(stream: Any) -> str:
        digest = read(stream)
        if right.exists():
            right.replace(bad)
        return digest

    monkeypatch.setattr(drop_folder, "_sha256", replaced)
    assert names(folder, stripes) == []
    assert not (folder / ".rejected").exists()
    assert names(folder, stripes) == ["rows.npz"]


def test_a_volume_that_fails_in_the_middle_of_a_file_rejects_none(
    folder: Path,
    put: Put,
    stripes: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put("rows.npz")

    def failing(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failed:
        failed.setattr(zipfile.ZipFile, "open", failing)
        assert names(folder, stripes) == []
    (left,) = fields_of(caplog, "file left for the next training")
    assert left["reason"] == "cannot be read (Input/output error)"
    assert names(folder, stripes) == ["rows.npz"]


def test_a_fresh_file_that_stays_as_it_is_is_taken_at_once(
    folder: Path, put: Put, stripes: Dataset
) -> None:
    put("fresh.npz", age=0)
    assert names(folder, stripes) == ["fresh.npz"]


def test_a_file_from_the_future_is_taken_as_well(folder: Path, put: Put, stripes: Dataset) -> None:
    put("ahead.npz", age=-3600)
    assert names(folder, stripes) == ["ahead.npz"]


def test_of_a_few_files_the_others_are_not_even_judged(
    folder: Path, put: Put, stripes: Dataset
) -> None:
    put("one.npz")
    (drop,) = read_drops(folder, stripes)
    put("bad.npz", y=["x"] * 3)
    put("second.npz")
    chosen = read_drops(folder, stripes, frozenset({drop.sha256}))
    assert [drop.name for drop in chosen] == ["one.npz"]
    assert (folder / "bad.npz").exists()


def test_a_long_list_of_classes_is_cut_in_the_reason(folder: Path, put: Put) -> None:
    rng = np.random.default_rng(0)
    classes = tuple(f"class {number}" for number in range(1000))
    inputs = rng.integers(0, 9, (1000, 4, 4), dtype=np.uint8)
    first = Dataset("many", inputs, np.arange(1000), classes, 255)
    put("bad.npz")
    assert read_drops(folder, first) == []
    assert reason(folder, "bad.npz").endswith("'class 9' and 990 more\n")
