"""Ray Serve on mlpserve's own contract, through its gRPC proxy; one replica."""
# mypy: disable-error-code="import-not-found,untyped-decorator,attr-defined"

import os
import signal

import ray
from ray import serve
from ray.serve.config import gRPCOptions

from benchmarks.compare.peers.mlp import Mlp, port
from benchmarks.compare.peers.own_contract import rows, to_batch, to_single
from mlpserve.v1 import prediction_pb2 as pb

SERVICER = "mlpserve.v1.prediction_pb2_grpc.add_PredictionServiceServicer_to_server"


@serve.deployment(max_ongoing_requests=100)
class Classifier:
    def __init__(self) -> None:
        self.mlp = Mlp()

    def Predict(self, request: pb.PredictRequest) -> pb.PredictResponse:  # noqa: N802
        return to_single(self.mlp(rows(request.instance)))

    def BatchPredict(  # noqa: N802
        self, request: pb.BatchPredictRequest
    ) -> pb.BatchPredictResponse:
        return to_batch(self.mlp(rows(request.instances)))


def main() -> None:
    ray.init(
        include_dashboard=False, log_to_driver=False, _temp_dir=os.environ["BENCH_FOLDER"] + "/ray"
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_SPARE_PORT"])},
        grpc_options=gRPCOptions(port=port(), grpc_servicer_functions=[SERVICER]),
    )
    serve.run(Classifier.bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
