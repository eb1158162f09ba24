"""The reader of foreign .npz files, with errors of the trainer's kind."""

from mlpserve_model.format import npz_reader
from mlpserve_trainer.errors import DataError

__all__ = ["NotAnArchive", "NpzReader"]


class NotAnArchive(DataError):
    """The file is not a whole .npz, or not yet."""


class NpzReader(npz_reader.NpzReader):
    """The arrays of an open .npz file, by name; every method raises DataError or NotAnArchive."""

    torn, unreadable = NotAnArchive, DataError
