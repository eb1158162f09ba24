"""MNIST from OpenML, converted once into a folder of IDX files in the cache."""

import contextlib
import socket
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import numpy.typing as npt

from mlpserve_trainer.datasets.idx import write_idx
from mlpserve_trainer.errors import DatasetUnavailable

__all__ = ["fetch_mnist"]

TRAINING_ROWS, TEST_ROWS = 60_000, 10_000
PIXELS = 28 * 28
# Pixels as uint8 from the start: 1.9 s and 330 MB at the peak, against 2.9 s and 1,050 MB with
# the types that pandas would choose, and 16 s and 990 MB with the liac-arff parser. Labels as
# text, because scikit-learn fails on the integer categories that newer pandas makes of them.
COLUMN_TYPES = dict.fromkeys(range(PIXELS), "uint8") | {PIXELS: "str"}
ADDRESS = "https://www.openml.org"
# The first is short, for machines without a network. The second bounds each pause later on: the
# server may take long to start a download.
FIRST_ANSWER_SECONDS, SILENCE_SECONDS = 5.0, 60.0
# No network, a broken connection, a damaged or unexpected answer, no pandas.
FAILURES = (OSError, HTTPException, EOFError, zlib.error, ValueError, KeyError, ImportError)


def fetch_mnist(
    folder: Path, training_rows: int = TRAINING_ROWS, test_rows: int = TEST_ROWS
) -> None:
    """Download mnist_784 and write it to `folder`, which appears only when it is complete.

    Args:
        folder: The folder to make.
        training_rows: Number of training rows, which come first.
        test_rows: Number of test rows.

    Raises:
        DatasetUnavailable: There is no network or no answer, or the answer is not MNIST.

    """
    with _workplace(folder) as workplace:
        images, labels = _download(workplace / "download")
        _check(images, labels, training_rows + test_rows)
        converted = workplace / "converted"
        _write(converted, images, labels, training_rows)
        # If another process was faster, the folder exists with the same contents.
        with contextlib.suppress(OSError):
            converted.rename(folder)


@contextlib.contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """Give a temporary folder on the same file system as `folder`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as workplace:
            yield Path(workplace)
    except OSError as error:
        raise DatasetUnavailable(
            f"MNIST cannot be kept in {folder.parent}: {error}; set MLPSERVE_CACHE_DIR"
        ) from error


def _download(data_home: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    try:
        _check_reachable()
        # Imported here: a second that nothing else needs, and only where OpenML answers.
        from sklearn.datasets import fetch_openml

        with _limited_silence(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels, digits = fetch_openml(
                "mnist_784",
                version=1,
                data_home=data_home,
                as_frame=False,
                return_X_y=True,
                parser="pandas",
                read_csv_kwargs={"dtype": COLUMN_TYPES},
                n_retries=1,
                delay=0.1,
            )
    except FAILURES as error:
        raise DatasetUnavailable(
            f"MNIST could not be fetched from OpenML ({_reason(error)}): put its four IDX files "
            "into a folder and name it with --data-dir, or use --dataset digits"
        ) from error
    return pixels, digits


def _check_reachable() -> None:
    """Raise OSError if OpenML does not answer within a few seconds."""
    try:
        urlopen(ADDRESS, timeout=FIRST_ANSWER_SECONDS).close()
    except HTTPError as error:
        error.close()  # an answer, whatever its status


@contextlib.contextmanager
def _limited_silence() -> Iterator[None]:
    """Limit how long scikit-learn waits for each answer; it has no setting for that."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    """Return the first line of the message; urllib has the cause in `reason`."""
    text = str(getattr(error, "reason", error)) or type(error).__name__
    return text.splitlines()[0]


def _check(images: npt.NDArray[Any], labels: npt.NDArray[Any], rows: int) -> None:
    if images.shape != (rows, PIXELS) or images.dtype != np.uint8 or labels.shape != (rows,):
        raise DatasetUnavailable(
            f"OpenML's answer is not MNIST: expected {rows} images of {PIXELS} bytes, "
            f"got {images.dtype} {images.shape} and {len(labels)} labels"
        )


def _write(
    folder: Path, images: npt.NDArray[Any], labels: npt.NDArray[Any], training_rows: int
) -> None:
    folder.mkdir()
    pixels, digits = images.reshape(-1, 28, 28), labels.astype(np.uint8)
    for prefix, rows in (("train", slice(training_rows)), ("t10k", slice(training_rows, None))):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", pixels[rows])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", digits[rows])
