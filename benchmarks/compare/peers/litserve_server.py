"""LitServe over HTTP with JSON bodies, its defaults otherwise."""
# mypy: disable-error-code="import-not-found,misc"

from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray

from benchmarks.compare.peers.mlp import Mlp, port


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.mlp = Mlp()

    def decode_request(self, request: dict[str, list[list[float]]]) -> NDArray[Any]:
        if "pixels" in request:
            return np.asarray(request["pixels"], np.uint8)
        return np.asarray(request["rows"], np.float32)

    def predict(self, x: NDArray[Any]) -> NDArray[np.float32]:
        return self.mlp(x)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, list[list[float]]]:
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu")
    server.run(host="127.0.0.1", port=port(), generate_client_file=False, log_level="warning")
