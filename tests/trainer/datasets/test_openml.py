import gzip
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_trainer import DatasetUnavailable
from mlpserve_trainer.datasets import DataLocations, load
from mlpserve_trainer.datasets import openml as source
from mlpserve_trainer.datasets.idx import read_folder
from tests.support.logs import fields_of

Bytes = npt.NDArray[np.uint8]
OpenML = Callable[[Bytes, Bytes], dict[str, bytes]]


@pytest.fixture
def few() -> tuple[Bytes, Bytes]:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (70, 784), dtype=np.uint8)
    return images, rng.integers(0, 10, 70, dtype=np.uint8)


def test_a_download_becomes_a_folder_of_idx_files_with_the_same_data(
    openml: OpenML, few: tuple[Bytes, Bytes], tmp_path: Path
) -> None:
    openml(*few)
    source.fetch_mnist(tmp_path / "mnist", 60, 10)
    files = read_folder(tmp_path / "mnist")
    np.testing.assert_array_equal(files.images.reshape(70, 784), few[0])
    np.testing.assert_array_equal(files.labels, few[1])
    assert files.training_rows == 60


def test_a_download_leaves_nothing_else_in_the_cache(
    openml: OpenML, few: tuple[Bytes, Bytes], tmp_path: Path
) -> None:
    openml(*few)
    source.fetch_mnist(tmp_path / "cache/mnist", 60, 10)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mnist"]


def test_a_second_download_at_the_same_time_does_no_harm(
    openml: OpenML, few: tuple[Bytes, Bytes], tmp_path: Path
) -> None:
    openml(*few)
    source.fetch_mnist(tmp_path / "mnist", 60, 10)
    source.fetch_mnist(tmp_path / "mnist", 60, 10)
    assert read_folder(tmp_path / "mnist").training_rows == 60


def test_an_answer_with_too_few_rows_is_refused_and_not_kept(
    openml: OpenML, few: tuple[Bytes, Bytes], tmp_path: Path
) -> None:
    openml(*few)
    with pytest.raises(DatasetUnavailable, match="expected 70000 images"):
        load("mnist", DataLocations(None, tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["api/v1/json/data/554", "mnist_784.arff"])
@pytest.mark.parametrize("body", [b"", b"no gzip", gzip.compress(b"no such data", mtime=0), "half"])
def test_a_damaged_answer_is_refused_and_not_kept(
    openml: OpenML, few: tuple[Bytes, Bytes], tmp_path: Path, part: str, body: bytes | str
) -> None:
    answers = openml(*few)
    (path,) = (path for path in answers if path.endswith(part))
    answers[path] = body if isinstance(body, bytes) else answers[path][:-30]
    with pytest.raises(DatasetUnavailable, match="could not be fetched from OpenML") as error:
        source.fetch_mnist(tmp_path / "mnist", 60, 10)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_openml")
def test_without_a_network_mnist_says_in_one_line_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailable, match="--data-dir, or use --dataset digits") as error:
        load("mnist", DataLocations(None, tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("no_openml")
def test_without_a_network_auto_takes_the_digits_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = load("auto", DataLocations(None, tmp_path))
    assert data.name == "digits"
    (fallback,) = fields_of(caplog, "using the digits of scikit-learn instead of MNIST")
    assert "Connection refused" in fallback["reason"]


def test_a_silent_network_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "FIRST_ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(source, "ADDRESS", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(DatasetUnavailable, match="timed out"):
            load("mnist", DataLocations(None, tmp_path))


def test_the_limit_on_silence_ends_with_the_download(
    openml: OpenML, few: tuple[Bytes, Bytes], tmp_path: Path
) -> None:
    openml(*few)
    source.fetch_mnist(tmp_path / "mnist", 60, 10)
    assert socket.getdefaulttimeout() is None


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetUnavailable, match="MLPSERVE_CACHE_DIR"):
        load("mnist", DataLocations(None, tmp_path / "file"))


@pytest.mark.slow
def test_the_whole_of_mnist_comes_through_openml_as_from_the_files(
    openml: OpenML, mnist_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = load("mnist", DataLocations(mnist_dir, tmp_path))
    openml(files.inputs.reshape(-1, 784).astype(np.uint8), files.labels.astype(np.uint8))
    fetched = load("mnist", DataLocations(None, tmp_path))
    assert fetched.digest() == files.digest()
    assert fetched.training_rows == files.training_rows

    monkeypatch.setattr(source, "ADDRESS", "http://127.0.0.1:9")
    again = load("mnist", DataLocations(None, tmp_path))
    assert again.digest() == files.digest()
