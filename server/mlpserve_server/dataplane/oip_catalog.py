"""The Open Inference Protocol's calls about server and models, bytes in and bytes out."""

import json
from collections.abc import Callable
from importlib import metadata

from mlpserve.open_inference import inference_pb2
from mlpserve.v1 import model_pb2
from mlpserve_server.dataplane import codec
from mlpserve_server.dataplane import oip_codec as open_inference
from mlpserve_server.dataplane.catalog import Catalog
from mlpserve_server.errors import ModelNotFound, ModelUnavailable, NotReady

__all__ = ["OpenCatalog"]

# The protocol's form is "<project>_<format>".
PLATFORM = "mlpserve_npz"
INPUT_DATATYPE = "FP32"  # the protocol has one for each input; UINT8 is accepted as well

_Tensor = inference_pb2.ModelMetadataResponse.TensorMetadata
VersionState = model_pb2.ModelVersion.State


class OpenCatalog:
    """Answers all of the protocol's calls except ModelInfer; `serving` returns the readiness."""

    def __init__(self, catalog: Catalog, serving: Callable[[], bool]) -> None:
        self._catalog = catalog
        self._serving = serving

    def server_live(self, request: bytes) -> bytes:
        """Answer a ServerLiveRequest: a server that can answer is live."""
        codec.parse(inference_pb2.ServerLiveRequest, request)
        return inference_pb2.ServerLiveResponse(live=True).SerializeToString()

    def server_ready(self, request: bytes) -> bytes:
        """Answer a ServerReadyRequest, as health does for the predictions."""
        codec.parse(inference_pb2.ServerReadyRequest, request)
        return inference_pb2.ServerReadyResponse(ready=self._serving()).SerializeToString()

    def server_metadata(self, request: bytes) -> bytes:
        """Answer a ServerMetadataRequest."""
        codec.parse(inference_pb2.ServerMetadataRequest, request)
        response = inference_pb2.ServerMetadataResponse(
            name="mlpserve", version=metadata.version("mlpserve")
        )
        return response.SerializeToString()

    def model_ready(self, request: bytes) -> bytes:
        """Answer a ModelReadyRequest; a model or version that is not there is not ready."""
        message = codec.parse(inference_pb2.ModelReadyRequest, request)
        try:
            state = self._described(message.name, message.version).state
        except (ModelNotFound, NotReady):
            state = VersionState.STATE_UNSPECIFIED
        can_answer = state in (VersionState.STATE_ACTIVE, VersionState.STATE_STANDBY)
        ready = self._serving() and can_answer
        return inference_pb2.ModelReadyResponse(ready=ready).SerializeToString()

    def model_metadata(self, request: bytes) -> bytes:
        """Answer a ModelMetadataRequest; raises ServingError."""
        message = codec.parse(inference_pb2.ModelMetadataRequest, request)
        described = self._described(message.name, message.version)
        if described.state == VersionState.STATE_FAILED:
            raise ModelUnavailable(f"version {described.ref.version}: {described.state_reason}")
        version = described.ref.version
        versions = [version] if message.version else self._catalog.manager.loaded
        response = inference_pb2.ModelMetadataResponse(
            name=described.ref.name,
            versions=map(str, versions),
            platform=PLATFORM,
            inputs=[_tensor(open_inference.INPUT, INPUT_DATATYPE, *described.input_shape)],
            outputs=_outputs(described),
            properties={
                "digest": described.ref.digest,
                "class_names": json.dumps(list(described.class_names)),
            },
        )
        return response.SerializeToString()

    def _described(self, name: str, version: str) -> model_pb2.ModelVersion:
        codec.check_name(name, self._catalog.manager.store.model)
        return self._catalog.describe(open_inference.selection(version, "version"))


def _outputs(described: model_pb2.ModelVersion) -> list[_Tensor]:
    classes, input_shape = len(described.class_names), tuple(described.input_shape)
    outputs = {name: open_inference.OUTPUTS[name] for name in open_inference.DEFAULT_OUTPUTS}
    return [
        _tensor(name, output.datatype, *output.shape(classes, input_shape))
        for name, output in outputs.items()
    ]


def _tensor(name: str, datatype: str, *shape: int) -> _Tensor:
    return _Tensor(name=name, datatype=datatype, shape=[-1, *shape])
