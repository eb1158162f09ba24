"""Labelled images from several sources, all as one checked `Dataset`."""

from mlpserve_trainer.datasets.dataset import Dataset
from mlpserve_trainer.datasets.sources import DATASETS, DataLocations, Source, load, parts_of

__all__ = ["DATASETS", "DataLocations", "Dataset", "Source", "load", "parts_of"]
