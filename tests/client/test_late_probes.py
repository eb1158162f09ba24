"""A busy server that sees the deadline of a probe pass before the client does."""

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.client import Connect


class Late(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """Gives up the first probes, as a server of ours does for callers that no longer wait."""

    def __init__(self) -> None:
        self.probes = 0

    def Check(  # noqa: N802  # gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        self.probes += 1
        if self.probes <= 2:
            context.abort(grpc.StatusCode.CANCELLED, "the caller no longer waits")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def test_probes_that_a_busy_server_gave_up_do_not_end_the_wait_for_it(connect: Connect) -> None:
    server, late = grpc.server(ThreadPoolExecutor(2)), Late()
    health_pb2_grpc.add_HealthServicer_to_server(late, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    connect(f"127.0.0.1:{port}").wait_until_ready(timeout=20)
    assert late.probes >= 3
    server.stop(0).wait(5)
