"""The Open Inference Protocol's calls about server and models, bytes in and bytes out."""

import json
from collections.abc import Callable, Iterator

from mlpserve.open_inference import inference_pb2, model_config_pb2
from mlpserve.v1 import model_pb2
from mlpserve_model.process.versions import version_of
from mlpserve_server.dataplane import codec
from mlpserve_server.dataplane import oip_codec as open_inference
from mlpserve_server.dataplane.catalog import Catalog
from mlpserve_server.dataplane.descriptions import describe_model
from mlpserve_server.errors import (
    InvalidInput,
    ModelNotFound,
    ModelUnavailable,
    NotReady,
    Unsupported,
)
from mlpserve_server.security.scope import ALL, Scope

__all__ = ["UNSUPPORTED", "OpenCatalog", "refuse"]

# The protocol's form is "<project>_<format>".
PLATFORM = "mlpserve_npz"
INPUT_DATATYPE = "FP32"  # the protocol has one for each input; UINT8 is accepted as well

_Tensor = inference_pb2.ModelMetadataResponse.TensorMetadata
BACKEND = "mlpserve"

# Triton's methods that this server does not have, and what there is instead.
_STORE = "replicas follow the store: publish a version, or move an alias with mlpserve-models"
_VALUES = "shared memory is not supported: send the values in the request"
UNSUPPORTED = {
    "ModelStreamInfer": "streams are not supported: send ModelInfer calls, many at once",
    "ModelStatistics": "statistics are Prometheus metrics: start the server with --metrics-listen",
    "RepositoryModelLoad": _STORE,
    "RepositoryModelUnload": _STORE,
    "SystemSharedMemoryStatus": _VALUES,
    "SystemSharedMemoryRegister": _VALUES,
    "SystemSharedMemoryUnregister": _VALUES,
    "CudaSharedMemoryStatus": _VALUES,
    "CudaSharedMemoryRegister": _VALUES,
    "CudaSharedMemoryUnregister": _VALUES,
    "TraceSetting": "tracing is set when the server starts: --traces",
    "LogSettings": "logging is set when the server starts: --log-level and --access-log",
}

_Index = inference_pb2.RepositoryIndexResponse.ModelIndex
VersionState = model_pb2.ModelVersion.State


def refuse(method: str, request: bytes) -> bytes:
    """Raise Unsupported with what there is instead of this method of Triton's."""
    raise Unsupported(f"{method}: {UNSUPPORTED[method]}")


class OpenCatalog:
    """Answers all of the protocol's calls except ModelInfer, and the two of Triton's that describe.

    Args:
        catalog: What it describes.
        serving: Returns the readiness of a model, and of the server where it is None.
        max_batch: The most instances in one request.

    """

    def __init__(
        self, catalog: Catalog, serving: Callable[[str | None], bool], max_batch: int
    ) -> None:
        self._catalog = catalog
        self._serving = serving
        self._max_batch = max_batch

    def server_live(self, request: bytes) -> bytes:
        """Answer a ServerLiveRequest: a server that can answer is live."""
        codec.parse(inference_pb2.ServerLiveRequest, request)
        return inference_pb2.ServerLiveResponse(live=True).SerializeToString()

    def server_ready(self, request: bytes) -> bytes:
        """Answer a ServerReadyRequest, as health does for the predictions."""
        codec.parse(inference_pb2.ServerReadyRequest, request)
        return inference_pb2.ServerReadyResponse(ready=self._serving(None)).SerializeToString()

    def server_metadata(self, request: bytes) -> bytes:
        """Answer a ServerMetadataRequest."""
        codec.parse(inference_pb2.ServerMetadataRequest, request)
        response = inference_pb2.ServerMetadataResponse(
            name="mlpserve", version=version_of("mlpserve")
        )
        return response.SerializeToString()

    def model_ready(self, request: bytes, scope: Scope = ALL) -> bytes:
        """Answer a ModelReadyRequest; a model or version that is not there is not ready."""
        message = codec.parse(inference_pb2.ModelReadyRequest, request)
        try:
            state = self._described(message.name, message.version, scope).state
        except (ModelNotFound, NotReady):
            state = VersionState.STATE_UNSPECIFIED
        can_answer = state in (VersionState.STATE_ACTIVE, VersionState.STATE_STANDBY)
        ready = can_answer and self._serving(message.name)
        return inference_pb2.ModelReadyResponse(ready=ready).SerializeToString()

    def model_metadata(self, request: bytes, scope: Scope = ALL) -> bytes:
        """Answer a ModelMetadataRequest; raises ServingError."""
        message = codec.parse(inference_pb2.ModelMetadataRequest, request)
        described = self._in_order(message.name, message.version, scope)
        version = described.ref.version
        loaded = self._catalog.models.get(message.name).loaded
        versions = [version] if message.version else loaded
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

    def model_config(self, request: bytes, scope: Scope = ALL) -> bytes:
        """Answer a ModelConfigRequest; raises ServingError."""
        message = codec.parse(inference_pb2.ModelConfigRequest, request)
        described = self._in_order(message.name, message.version, scope)
        config = model_config_pb2.ModelConfig(
            name=described.ref.name,
            platform=PLATFORM,
            backend=BACKEND,
            max_batch_size=self._max_batch,
            input=[
                model_config_pb2.ModelInput(
                    name=open_inference.INPUT,
                    data_type=_data_type(INPUT_DATATYPE),
                    dims=described.input_shape,
                )
            ],
            # A scalar for each instance is [1] in a configuration: Triton's has no empty dims.
            output=[
                model_config_pb2.ModelOutput(
                    name=tensor.name,
                    data_type=_data_type(tensor.datatype),
                    dims=tensor.shape[1:] or [1],
                )
                for tensor in _outputs(described)
            ],
        )
        return inference_pb2.ModelConfigResponse(config=config).SerializeToString()

    def repository_index(self, request: bytes, scope: Scope = ALL) -> bytes:
        """Answer a RepositoryIndexRequest: of the models in scope what is in memory, or why not."""
        message = codec.parse(inference_pb2.RepositoryIndexRequest, request)
        if message.repository_name:
            raise InvalidInput(
                "repository_name", "the store has no name here: leave repository_name empty"
            )
        indices = self._index(scope)
        models = [index for index in indices if index.state == "READY" or not message.ready]
        return inference_pb2.RepositoryIndexResponse(models=models).SerializeToString()

    def _index(self, scope: Scope) -> Iterator[_Index]:
        managers = self._catalog.models.managers
        for name in scope.among(managers):
            manager = managers[name]
            for version in manager.loaded:
                yield _Index(name=name, version=str(version), state="READY")
            if not manager.loaded:
                described = describe_model(manager)
                loading = described.state == VersionState.STATE_LOADING
                yield _Index(
                    name=name,
                    state="LOADING" if loading else "UNAVAILABLE",
                    reason=described.state_reason,
                )

    def _in_order(self, name: str, version: str, scope: Scope) -> model_pb2.ModelVersion:
        """Return a version that is not damaged; raises ServingError."""
        described = self._described(name, version, scope)
        if described.state == VersionState.STATE_FAILED:
            raise ModelUnavailable(f"version {described.ref.version}: {described.state_reason}")
        return described

    def _described(self, name: str, version: str, scope: Scope) -> model_pb2.ModelVersion:
        chosen = open_inference.selection(version, "version")
        return self._catalog.describe(chosen._replace(name=name), scope)


def _outputs(described: model_pb2.ModelVersion) -> list[_Tensor]:
    classes, input_shape = len(described.class_names), tuple(described.input_shape)
    outputs = {name: open_inference.OUTPUTS[name] for name in open_inference.DEFAULT_OUTPUTS}
    return [
        _tensor(name, output.datatype, *output.shape(classes, input_shape))
        for name, output in outputs.items()
    ]


def _tensor(name: str, datatype: str, *shape: int) -> _Tensor:
    return _Tensor(name=name, datatype=datatype, shape=[-1, *shape])


def _data_type(datatype: str) -> model_config_pb2.DataType.ValueType:
    return model_config_pb2.DataType.Value(f"TYPE_{datatype}")
