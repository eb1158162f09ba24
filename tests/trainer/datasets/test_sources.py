"""What a user names is used or refused, never replaced by something else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpserve_trainer import DataError, UsageError
from mlpserve_trainer.cli import main
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.idx import write_idx
from tests.support.images import png_of_size
from tests.support.logs import fields_of

Image = pytest.importorskip("PIL.Image")
PIXELS = np.arange(96, dtype=np.uint8).reshape(6, 4, 4) * 2
ENDS_EARLY = "the inputs end far below the value that means 1.0; set an array named maximum"
NAMES = np.array(["cat", "dog"] * 3)


def auto(place: Path) -> Dataset:
    return load("auto", DataLocations(place, place.parent / "cache"))


def images(folder: Path) -> Path:
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        (folder / name).mkdir(parents=True, exist_ok=True)
        count = len(list((folder / name).iterdir()))
        Image.fromarray(pixels).save(folder / name / f"{count}.png")
    return folder


def test_an_npz_file_is_recognised_whatever_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "letters.npz", X=PIXELS, y=NAMES)
    (tmp_path / "letters.npz").rename(tmp_path / "letters")
    data = auto(tmp_path / "letters")
    assert (data.name, data.class_names) == ("npz", ("cat", "dog"))


def test_a_folder_with_one_npz_file_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data/letters.npz", X=PIXELS, y=NAMES)
    assert auto(tmp_path / "data").name == "npz"


def test_a_folder_of_idx_files_is_mnist(tmp_path: Path) -> None:
    write_idx(tmp_path / "images-idx3-ubyte", PIXELS)
    write_idx(tmp_path / "labels-idx1-ubyte", np.arange(6, dtype=np.uint8) % 2)
    assert auto(tmp_path).name == "mnist"


def test_a_folder_of_images_for_each_class_is_recognised(tmp_path: Path) -> None:
    data = auto(images(tmp_path / "pets"))
    assert (data.name, data.class_names, data.input_shape) == ("images", ("cat", "dog"), (4, 4))
    np.testing.assert_array_equal(data.inputs[:3], PIXELS[::2])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("header", ["", "width,height,kind\n"])
def test_a_csv_file_is_recognised(tmp_path: Path, encoding: str, header: str) -> None:
    path = tmp_path / "pets.csv"
    path.write_text(f'{header}0.5,0.25,cat\n1,0,"big, dog"\n\n', encoding)
    data = auto(path)
    assert (data.name, data.class_names) == ("csv", ("big, dog", "cat"))
    np.testing.assert_array_equal(data.inputs, np.array([[0.5, 0.25], [1, 0]], np.float32))


@pytest.mark.parametrize("text", ["", "a\n", "1,2,a\n1,b\n", "1,x,a\n", "1,nan,a\n0,2,b\n"])
def test_a_csv_file_that_cannot_be_trained_on_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pets.csv").write_text(text)
    with pytest.raises(DataError, match=r"pets\.csv"):
        auto(tmp_path / "pets.csv")


def test_the_class_column_of_a_csv_file_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "pets.csv").write_text("width,kind\n0.5,cat\n1,dog\n")
    auto(tmp_path / "pets.csv")
    (said,) = fields_of(caplog, "the last column is the class")
    assert (said["column"], said["classes"]) == ("kind", 2)
    assert "many numbers" not in caplog.text


@pytest.mark.parametrize(("rows", "warnings"), [(11 * 19, 1), (11 * 20, 0)])
def test_a_class_column_that_looks_like_a_measurement_is_warned_of(
    rows: int, warnings: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "".join(f"0.5,{row % 11}\n" for row in range(rows))
    (tmp_path / "pets.csv").write_text(text)
    auto(tmp_path / "pets.csv")
    assert caplog.text.count("the last column has many numbers for classes") == warnings


def test_a_csv_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pets.csv").write_bytes("0.5,kätzchen\n".encode("latin-1"))
    with pytest.raises(DataError, match="in UTF-8"):
        auto(tmp_path / "pets.csv")


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    images(tmp_path)
    Image.fromarray(PIXELS[0, :3]).save(tmp_path / "cat/9.png")
    with pytest.raises(DataError, match=r"9\.png is 4×3 pixels, expected 4×4"):
        auto(tmp_path)


def test_an_image_beyond_the_memory_is_refused_by_its_header(tmp_path: Path) -> None:
    (images(tmp_path / "data") / "cat/0.png").write_bytes(png_of_size(8000, 8000))
    limited = (
        "import resource, sys; from mlpserve_trainer.cli import main;"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30,) * 2); sys.exit(main())"
    )
    command = [sys.executable, "-c", limited, "train", "--data-dir", str(tmp_path / "data")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "0.png is 8000×8000 pixels, expected at most" in run.stderr


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "cat/0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png cannot be read as an image"):
        auto(tmp_path)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.fromarray(np.full((4, 4), 40_000, np.uint16)), "pixels of more than 8 bits"),
        (Image.fromarray(np.full((4, 4), 0.5, np.float32)), "pixels of more than 8 bits"),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "transparent pixels"),
        (Image.new("LA", (4, 4), (0, 254)), "transparent pixels"),
    ],
)
def test_an_image_that_would_be_read_as_another_is_refused(
    image: Any, words: str, tmp_path: Path
) -> None:
    images(tmp_path)
    image.save(tmp_path / "cat/9.tif")
    with pytest.raises(DataError, match=rf"9\.tif has {words}"):
        auto(tmp_path)


def test_an_opaque_image_with_an_alpha_is_read(tmp_path: Path) -> None:
    images(tmp_path)
    Image.new("RGBA", (4, 4), (9, 9, 9, 255)).save(tmp_path / "cat/9.png")
    assert (auto(tmp_path).inputs == 9).all(axis=(1, 2)).any()


@pytest.mark.parametrize("dataset", ["auto", "mnist"])
def test_an_empty_folder_is_wrong_usage_and_not_replaced(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "typo").mkdir()
    place = str(tmp_path / "typo")
    assert main(["train", "--data-dir", place, "--dataset", dataset]) == 2
    assert not (tmp_path / "store/mnist/1").exists()


def test_a_file_of_another_kind_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"notes\.txt cannot be trained on"):
        auto(tmp_path / "notes.txt")


def test_inputs_that_end_far_below_their_maximum_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.savez(tmp_path / "digits.npz", X=PIXELS // 12, y=NAMES)
    load("npz", DataLocations(tmp_path / "digits.npz", tmp_path))
    assert fields_of(caplog, ENDS_EARLY) == [{"largest": 15, "maximum": 255}]
    caplog.clear()
    np.savez(tmp_path / "digits.npz", X=PIXELS // 12, y=NAMES, maximum=16)
    load("npz", DataLocations(tmp_path / "digits.npz", tmp_path))
    assert not fields_of(caplog, ENDS_EARLY)
