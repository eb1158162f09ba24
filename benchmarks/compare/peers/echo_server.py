"""A bare grpcio server on a thread pool that computes nothing: what the framework alone costs.

It parses requests, and answers messages of the right size that it made once.
"""

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np

from benchmarks.compare.peers.mlp import port
from benchmarks.compare.peers.own_contract import to_batch, to_single
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve.v1 import prediction_pb2_grpc

EVEN = np.full((1000, 10), 0.1, np.float32)


class Echo(prediction_pb2_grpc.PredictionServiceServicer):
    def __init__(self) -> None:
        self.single = to_single(EVEN[:1])
        self.batch = to_batch(EVEN)

    def Predict(  # noqa: N802 - the contract's name
        self, request: pb.PredictRequest, context: grpc.ServicerContext
    ) -> pb.PredictResponse:
        return self.single

    def BatchPredict(  # noqa: N802 - the contract's name
        self, request: pb.BatchPredictRequest, context: grpc.ServicerContext
    ) -> pb.BatchPredictResponse:
        return self.batch


def main() -> None:
    server = grpc.server(
        ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 64 << 20)]
    )
    prediction_pb2_grpc.add_PredictionServiceServicer_to_server(Echo(), server)
    server.add_insecure_port(f"127.0.0.1:{port()}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
