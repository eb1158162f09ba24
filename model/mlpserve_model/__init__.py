"""The network, the file format and the versioned store, which trainer and server share."""

from mlpserve_model.format.errors import (
    AliasConflict,
    CorruptVersion,
    StoreBusy,
    StoreError,
    UnsupportedModel,
    VersionNotFound,
)
from mlpserve_model.format.manifest import (
    DatasetInfo,
    Draft,
    FileInfo,
    InputValues,
    Manifest,
    Signature,
    Verdict,
)
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
from mlpserve_model.store.store import CHALLENGER, CHAMPION, Store

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "AliasConflict",
    "CorruptVersion",
    "DatasetInfo",
    "Draft",
    "FileInfo",
    "InputValues",
    "Layer",
    "Manifest",
    "Network",
    "Signature",
    "Store",
    "StoreBusy",
    "StoreError",
    "StoredModel",
    "UnsupportedModel",
    "Verdict",
    "VersionNotFound",
    "Weights",
    "forward",
    "initialise",
    "loss_and_gradients",
    "scale_pixels",
]
