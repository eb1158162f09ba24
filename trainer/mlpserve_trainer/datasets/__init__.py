"""Labelled images from several sources, all as one checked `Dataset`."""

from mlpserve_trainer.datasets.dataset import Dataset
from mlpserve_trainer.datasets.sources import DATASETS, Places, Source, load, parts_of

__all__ = ["DATASETS", "Dataset", "Places", "Source", "load", "parts_of"]
