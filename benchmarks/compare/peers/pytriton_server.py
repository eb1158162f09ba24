"""PyTriton: Triton's own gRPC front, the model in this Python process, with its batching."""
# mypy: disable-error-code="import-not-found,untyped-decorator"

import os

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.compare.peers.mlp import Mlp, port

MLP = Mlp()


@batch
def classify(rows: NDArray[np.generic]) -> list[NDArray[np.float32]]:
    return [MLP(rows)]


def main() -> None:
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=port(),
        allow_http=False,
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config, workspace=os.environ["BENCH_FOLDER"] + "/pytriton") as triton:
        # One model for each type of input: Triton fixes it when a model is registered.
        for name, dtype in (("floats", np.float32), ("pixels", np.uint8)):
            triton.bind(
                model_name=name,
                infer_func=classify,
                inputs=[Tensor(name="rows", dtype=dtype, shape=(784,))],
                outputs=[Tensor(name="probabilities", dtype=np.float32, shape=(10,))],
                config=ModelConfig(max_batch_size=1000),
            )
        triton.serve()


if __name__ == "__main__":
    main()
