"""The data sets by name, and where each comes from."""

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from mlpserve_trainer.datasets import csv_file, image_folder, npz, openml
from mlpserve_trainer.datasets.combined import SourceSpec, join, parse_parts
from mlpserve_trainer.datasets.dataset import Dataset, encode_labels
from mlpserve_trainer.datasets.files import is_folder
from mlpserve_trainer.datasets.idx import IdxFolder, has_images, read_folder
from mlpserve_trainer.datasets.npz import LabelledRows
from mlpserve_trainer.errors import DataError, DatasetUnavailable, UsageError
from mlpserve_trainer.input_files import open_data, read_text

__all__ = ["DATASETS", "DataLocations", "Source", "check_used", "load", "parts_of", "uses_data_dir"]

CLASS_NAMES_FILE = "class-names.txt"
TEN_DIGITS = tuple("0123456789")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataLocations:
    """Where data sets are looked for: what the user named, and what earlier runs fetched."""

    data_dir: Path | None
    cache_dir: Path

    @property
    def cached_mnist(self) -> Path:
        """The folder that the OpenML download is converted into."""
        return self.cache_dir / "mnist"


@dataclass(frozen=True)
class Source:
    """A data set that can be asked for by name."""

    description: str
    load: Callable[[DataLocations], Dataset]


def load(
    name: str, places: DataLocations, used: Mapping[str, frozenset[str]] | None = None
) -> Dataset:
    """Load a data set by name, or several joined by +; see `parts_of`.

    * `used`: of a folder of files that is among several sources, by its name, the sha256 of the
      files to use; all of them where it has none.

    Raises UsageError when there is no data set of that name, DataError when the data cannot be
    used, and DatasetUnavailable when it is not there and cannot be fetched.
    """
    check_used(name, places)
    parts = parts_of(name)
    first = _load_part(places, parts[0])
    # What `auto` turned out to be.
    parts = (replace(parts[0], name=first.name), *parts[1:])
    if len(parts) == 1:
        data = replace(first, name=str(parts[0]))
    else:
        data = join(first, parts, partial(_load_part, places), used or {})
    facts = {
        "data_set": data.name,
        "rows": len(data.inputs),
        "inputs": data.input_kind,
        "source": data.source,
    }
    logger.info("data loaded", extra=facts)
    return data


def parts_of(name: str) -> tuple[SourceSpec, ...]:
    """Cut "mnist+npz:/data/corrections" into its parts; raises UsageError for unknown ones."""
    parts = parse_parts(name)
    for part in parts:
        if part.name not in DATASETS:
            near = difflib.get_close_matches(part.name, DATASETS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(DATASETS)}"
            raise UsageError(f"unknown data set {part.name!r}: {hint}")
        if part.name == "digits" and part.place:
            raise UsageError(f"data set {part}: the digits come with scikit-learn, from no place")
    return parts


def uses_data_dir(name: str) -> bool:
    """Return True if some source of this data set is read from --data-dir."""
    return any(part.place is None and part.name != "digits" for part in parts_of(name))


def check_used(name: str, places: DataLocations) -> None:
    """Raise UsageError for an unknown data set, or a --data-dir that it is not read from."""
    used = uses_data_dir(name)
    if places.data_dir is not None and not used:
        raise UsageError(
            f"--data-dir {places.data_dir} is not used by data set {name}: leave it out, or name "
            "the data set that is there, as --dataset auto"
        )


def _load_part(places: DataLocations, part: SourceSpec) -> Dataset:
    places = replace(places, data_dir=part.place or places.data_dir)
    if places.data_dir is not None:
        is_folder(places.data_dir)  # raises where nothing is there
    return DATASETS[part.name].load(places)


def load_mnist(places: DataLocations) -> Dataset:
    """Load MNIST from the named folder, else the cache, else OpenML."""
    if places.data_dir is not None:
        if has_images(places.data_dir):
            return _from_folder("mnist", places.data_dir, TEN_DIGITS)
        raise UsageError(
            f"{places.data_dir} holds no IDX files of MNIST, such as train-images-idx3-ubyte.gz; "
            "leave --data-dir out to fetch MNIST, or name another --dataset"
        )
    if not has_images(places.cached_mnist):
        logger.info("fetching MNIST from OpenML")
        openml.fetch_mnist(places.cached_mnist)
    return _from_folder("mnist", places.cached_mnist, TEN_DIGITS)


def load_digits(_: DataLocations) -> Dataset:
    """Load the 1,797 images of 8 by 8 pixels that come with scikit-learn."""
    # From its file: to import scikit-learn takes a second, half of a training on these images.
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    rows = np.loadtxt(str(file), dtype=np.uint8, delimiter=",")
    return Dataset(
        name="digits",
        inputs=np.ascontiguousarray(rows[:, :-1]).reshape(-1, 8, 8),
        labels=rows[:, -1].astype(np.int64),
        class_names=TEN_DIGITS,
        input_maximum=16,
        source="scikit-learn",
    )


def load_idx(places: DataLocations) -> Dataset:
    """Load any folder of IDX files, with its class names where it has a file of them."""
    folder = _required(places, "idx", "a folder of IDX files")
    return _from_folder("idx", folder, _named_classes(folder))


def load_npz(places: DataLocations) -> Dataset:
    """Load the arrays X and y of an .npz file."""
    path = npz.find_npz(_required(places, "npz", "an .npz file with arrays X and y"))
    return _from_rows("npz", path, npz.read_npz(path))


def load_auto(places: DataLocations) -> Dataset:
    """Load what lies in the named place; without one MNIST, or else the digits of scikit-learn."""
    if places.data_dir is not None:
        return DATASETS[recognised(places.data_dir)].load(places)
    try:
        return load_mnist(places)
    except DatasetUnavailable as error:
        logger.warning(
            "using the digits of scikit-learn instead of MNIST", extra={"reason": str(error)}
        )
        return replace(load_digits(places), is_fallback=True)


def recognised(place: Path) -> str:
    """Return the name of the data set that a file or folder holds, known by its contents.

    Raises:
        UsageError: it is nothing that can be trained on.

    """
    if is_folder(place):
        if has_images(place):
            return "mnist"
        if list(place.glob("*.npz")):
            return "npz"
        if image_folder.has_classes(place):
            return "images"
    elif place.suffix.lower() == ".csv":
        return "csv"
    else:
        with open_data(place) as file:
            if file.read(2) == b"PK":
                return "npz"
    raise UsageError(
        f"{place} cannot be trained on: expected an .npz file with arrays X and y, a .csv file, a "
        "folder of IDX files, or a folder with a folder of images for each class"
    )


def load_csv(places: DataLocations) -> Dataset:
    """Load a .csv file: a number in each column, the class in the last."""
    path = _required(places, "csv", "a .csv file with the class in the last column")
    return _from_rows("csv", path, csv_file.read_csv(path))


def load_images(places: DataLocations) -> Dataset:
    """Load a folder with a folder of images for each class."""
    folder = _required(places, "images", "a folder with a folder of images for each class")
    return _from_rows("images", folder, image_folder.read_images(folder))


def _from_rows(name: str, path: Path, rows: LabelledRows) -> Dataset:
    labels, class_names = encode_labels(rows.labels)
    whole = rows.inputs.dtype == np.uint8 and rows.inputs.size and not rows.says_maximum
    if whole and (highest := int(rows.inputs.max())) < rows.maximum // 2:
        logger.warning(
            "the inputs end far below the value that means 1.0; set an array named maximum",
            extra={"largest": highest, "maximum": rows.maximum},
        )
    return Dataset(
        name=name,
        inputs=rows.inputs,
        labels=labels,
        class_names=class_names,
        input_maximum=rows.maximum,
        source=str(path),
        input_kind=rows.input_kind,
        columns=rows.columns,
    )


DATASETS = {
    "mnist": Source("70,000 digits of 28×28: IDX files, else the cache, else OpenML", load_mnist),
    "digits": Source("1,797 digits of 8×8 that come with scikit-learn", load_digits),
    "idx": Source(f"a folder of IDX files (--data-dir), {CLASS_NAMES_FILE} optional", load_idx),
    "npz": Source("your own .npz with arrays X and y (--data-dir FILE)", load_npz),
    "csv": Source(
        "your own .csv: numbers, the class in the last column (--data-dir FILE)",
        load_csv,
    ),
    "images": Source("a folder with a folder of images for each class (--data-dir)", load_images),
    "auto": Source("what --data-dir holds; without one mnist, else digits", load_auto),
}


def _required(places: DataLocations, name: str, what: str) -> Path:
    if places.data_dir is None:
        raise UsageError(f"data set {name} needs --data-dir: {what}")
    return places.data_dir


def _named_classes(folder: Path) -> tuple[str, ...] | None:
    path = folder / CLASS_NAMES_FILE
    try:
        path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:  # which does not mean that there are no names
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return tuple(read_text(path).splitlines())


def _from_folder(name: str, folder: Path, class_names: tuple[str, ...] | None) -> Dataset:
    files = read_folder(folder)
    if class_names is None:
        _check_test_labels(folder, files)
        labels, class_names = encode_labels(files.labels)
    else:
        labels = files.labels.astype(np.int64)
    return Dataset(
        name=name,
        inputs=files.images,
        labels=labels,
        class_names=class_names,
        input_maximum=255,
        training_rows=files.training_rows,
        source=str(folder),
    )


def _check_test_labels(folder: Path, files: IdxFolder) -> None:
    """Refuse labels that only test rows have: without names, the training rows name the classes."""
    known = np.unique(files.labels[: files.training_rows])
    strangers = np.setdiff1d(files.labels, known)
    if len(strangers):
        raise DataError(
            f"{folder}: labels out of range: the test files have {strangers.tolist()}, "
            f"which no training row has; training labels are {known.tolist()}"
        )
