"""What trainer and server share: the network, the file format and the versioned store."""

from mlpserve_model.errors import (
    AliasConflict,
    ModelRejected,
    StoreBusy,
    StoreError,
    VersionNotFound,
)
from mlpserve_model.format.manifest import Dataset, FileInfo, Gate, Manifest
from mlpserve_model.format.version_files import StoredModel
from mlpserve_model.nn.network import (
    Layer,
    Network,
    Weights,
    forward,
    initialise,
    loss_and_gradients,
    scale_pixels,
)
from mlpserve_model.store.store import CHAMPION, Store

__all__ = [
    "CHAMPION",
    "AliasConflict",
    "Dataset",
    "FileInfo",
    "Gate",
    "Layer",
    "Manifest",
    "ModelRejected",
    "Network",
    "Store",
    "StoreBusy",
    "StoreError",
    "StoredModel",
    "VersionNotFound",
    "Weights",
    "forward",
    "initialise",
    "loss_and_gradients",
    "scale_pixels",
]
