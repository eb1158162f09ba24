import gzip
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_trainer import DataError, UsageError
from mlpserve_trainer.datasets import DataLocations, Dataset, load
from mlpserve_trainer.datasets.idx import read_idx, write_idx

Bytes = npt.NDArray[np.uint8]

IMAGES = np.arange(240, dtype=np.uint8).reshape(20, 3, 4)
LABELS = np.array([4, 7] * 10, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty training and six test images, all there is to an IDX data set."""
    folder = tmp_path / "idx"
    folder.mkdir()
    for prefix, rows in (("train", slice(20)), ("t10k", slice(6))):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", IMAGES[rows])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", LABELS[rows])
    return folder


def idx(folder: Path) -> Dataset:
    return load("idx", DataLocations(folder, folder / "cache"))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_idx(tmp_path / "file", IMAGES)
    np.testing.assert_array_equal(read_idx(tmp_path / "file"), IMAGES)


def test_the_header_is_the_published_one(tmp_path: Path) -> None:
    write_idx(tmp_path / "file", IMAGES)
    assert (tmp_path / "file").read_bytes()[:16].hex() == "00000803000000140000000300000004"


def test_gzip_files_are_known_by_their_contents(tmp_path: Path) -> None:
    write_idx(tmp_path / "plain", IMAGES)
    (tmp_path / "packed").write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    np.testing.assert_array_equal(read_idx(tmp_path / "packed"), IMAGES)


def test_training_and_test_files_give_the_official_split(folder: Path) -> None:
    data = idx(folder)
    assert (len(data.inputs), data.training_rows, data.input_shape) == (26, 20, (3, 4))


def test_a_single_pair_of_files_has_no_official_split(folder: Path) -> None:
    for path in folder.glob("t10k*"):
        path.unlink()
    assert idx(folder).training_rows is None


def test_classes_are_named_after_the_labels_in_the_training_files(folder: Path) -> None:
    data = idx(folder)
    assert data.class_names == ("4", "7")
    assert data.labels[:4].tolist() == [0, 1, 0, 1]


def test_a_file_of_class_names_names_the_classes(folder: Path) -> None:
    (folder / "class-names.txt").write_text("\n".join("abcdefgh") + "\n")
    data = idx(folder)
    assert data.class_names == tuple("abcdefgh")
    assert data.labels[:2].tolist() == [4, 7]


def test_labels_beyond_the_named_classes_are_refused(folder: Path) -> None:
    (folder / "class-names.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match="labels out of range: expected 0 to 2"):
        idx(folder)


def test_test_labels_that_training_never_shows_are_refused(folder: Path) -> None:
    write_idx(folder / "t10k-labels-idx1-ubyte", np.full(6, 9, dtype=np.uint8))
    with pytest.raises(DataError, match=r"labels out of range: the test files have \[9\]"):
        idx(folder)


def test_a_plain_file_wins_over_its_compressed_twin(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"not read")
    assert len(idx(folder).inputs) == 26


@pytest.mark.parametrize("magic", ["00000d03", "89504e47", "0000", ""])
def test_a_wrong_magic_number_is_shown(folder: Path, magic: str) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(bytes.fromhex(magic) + path.read_bytes()[4:] * (len(magic) == 8))
    with pytest.raises(DataError, match=f"wrong magic number: .* got {magic or 'an empty'}"):
        idx(folder)


def test_a_truncated_gzip_file_is_refused(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.write_bytes(packed[:-40])
    with pytest.raises(DataError, match="fetch the file again"):
        idx(folder)


def test_a_damaged_gzip_file_is_refused(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    packed = bytearray(gzip.compress(path.read_bytes()))
    packed[-8:-4] = bytes(4)  # its checksum
    path.write_bytes(packed)
    with pytest.raises(DataError, match="cannot be read"):
        idx(folder)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_than_its_header_says_is_refused(
    folder: Path, change: int
) -> None:
    path = folder / "train-images-idx3-ubyte"
    data = path.read_bytes()
    path.write_bytes(data[:-1] if change < 0 else data + b"\0")
    with pytest.raises(DataError, match=r"should hold 240 values for shape \(20, 3, 4\)"):
        idx(folder)


def test_a_header_that_claims_terabytes_is_refused_before_reading(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(bytes.fromhex("00000803" + "ffffffff" * 3))
    with pytest.raises(DataError, match="claims the shape"):
        idx(folder)


def test_more_labels_than_images_are_refused(folder: Path) -> None:
    write_idx(folder / "train-labels-idx1-ubyte", np.append(LABELS, 4).astype(np.uint8))
    with pytest.raises(DataError, match="20 images but train-labels-idx1-ubyte has 21 labels"):
        idx(folder)


def test_images_and_labels_in_each_others_place_are_refused(folder: Path) -> None:
    shutil.copy(folder / "train-labels-idx1-ubyte", folder / "train-images-idx3-ubyte")
    with pytest.raises(DataError, match="expected images of two or more dimensions"):
        idx(folder)


def test_test_images_of_another_shape_are_refused(folder: Path) -> None:
    write_idx(folder / "t10k-images-idx3-ubyte", IMAGES[:6].reshape(6, 4, 3))
    with pytest.raises(DataError, match="expected the same shape"):
        idx(folder)


def test_images_without_labels_are_refused(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="half of a pair is missing for 't10k-'"):
        idx(folder)


def test_a_folder_without_idx_files_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected names such as train-images-idx3-ubyte\.gz"):
        idx(tmp_path)


def test_two_training_sets_in_one_folder_are_refused(folder: Path) -> None:
    for kind, values in (("images", IMAGES), ("labels", LABELS)):
        write_idx(folder / f"more-train-{kind}", values)
    with pytest.raises(DataError, match="found 2 among"):
        idx(folder)


def test_mnist_in_the_named_folder_wins_over_the_cache(folder: Path, tmp_path: Path) -> None:
    _copy_as_mnist(folder, tmp_path / "cache/mnist", IMAGES // 2)
    data = load("mnist", DataLocations(folder, tmp_path / "cache"))
    assert data.inputs[19, 2, 3] == IMAGES[19, 2, 3]
    assert data.class_names == tuple("0123456789")


def test_a_named_folder_without_mnist_is_refused_though_the_cache_has_it(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    shutil.copytree(folder, tmp_path / "cache/mnist")
    (tmp_path / "typo").mkdir()
    with pytest.raises(UsageError, match="typo holds no IDX files of MNIST"):
        load("mnist", DataLocations(tmp_path / "typo", tmp_path / "cache"))


def test_labels_that_are_no_digits_are_refused_as_mnist(folder: Path) -> None:
    write_idx(folder / "train-labels-idx1-ubyte", np.array([3, 10] * 10, dtype=np.uint8))
    with pytest.raises(DataError, match="expected 0 to 9 for 10 classes, got 3 to 10"):
        load("mnist", DataLocations(folder, folder))


def test_the_real_mnist_is_read_whole(mnist_dir: Path, tmp_path: Path) -> None:
    data = load("mnist", DataLocations(mnist_dir, tmp_path))
    assert data.inputs.shape == (70_000, 28, 28)
    assert data.training_rows == 60_000
    assert data.labels[[0, 1, 2, 60_000, 60_001]].tolist() == [5, 0, 4, 7, 2]
    assert np.bincount(data.labels[60_000:]).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]


def _copy_as_mnist(folder: Path, target: Path, images: Bytes) -> None:
    shutil.copytree(folder, target)
    write_idx(target / "train-images-idx3-ubyte", images)


@pytest.mark.parametrize(
    "shape",
    [(1,) * 255, (1,) * 33, (2**32 - 1,) * 5, (2**31, 2**31), (0,), (0, 2**32 - 1, 2**32 - 1)],
    ids=["255 dimensions", "33 dimensions", "too large", "larger than 64 bits", "none", "no rows"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_shape_that_cannot_be_is_refused(
    tmp_path: Path, shape: tuple[int, ...], packed: bool
) -> None:
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + b"\0"
    (tmp_path / "file").write_bytes(gzip.compress(header) if packed else header)
    with pytest.raises(DataError, match="file"):
        read_idx(tmp_path / "file")


def test_a_small_file_that_inflates_to_a_large_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlpserve_trainer.datasets.idx.memory_limit", lambda: 2**20)
    header = struct.pack(">4B2I", 0, 0, 8, 2, 2**12, 2**12)
    (tmp_path / "file").write_bytes(gzip.compress(header + bytes(2**24)))
    with pytest.raises(DataError, match="16777216 bytes, expected at most 1048576"):
        read_idx(tmp_path / "file")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "file")
    with pytest.raises(DataError, match="is not a regular file but a FIFO"):
        read_idx(tmp_path / "file")
