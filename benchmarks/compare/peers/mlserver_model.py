"""MLServer: a custom runtime for the Open Inference Protocol, over gRPC and REST."""
# mypy: disable-error-code="import-not-found,misc"

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.compare.peers.mlp import Mlp


class Classifier(MLModel):
    async def load(self) -> bool:
        self.mlp = Mlp()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output("probabilities", self.mlp(x))
        return InferenceResponse(model_name=self.name, outputs=[output])
