"""Who may call: every method wants a token where there are tokens, but health.

Health stays open. It tells no more than SERVING or not, and those who ask cannot show a token:
gRPC's own health checks, by which clients choose among servers, send no metadata, and neither
do the probes of orchestrators.
"""

from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_status import rpc_status

from mlpserve_server.errors import Unauthenticated
from mlpserve_server.security.credentials import Admits
from mlpserve_server.transport.status import status_of

__all__ = ["Guard"]


class Guard(grpc.ServerInterceptor):
    """Refuses calls that are not admitted, before anything of their requests is read.

    All get the same answer, also those of methods that do not exist. The threads of `pool` give
    it: its own, so that refusals and those who may call do not keep each other waiting.
    """

    def __init__(self, admits: Admits, pool: futures.ThreadPoolExecutor) -> None:
        self._admits = admits

        def refuse(requests: Any, context: grpc.ServicerContext) -> Any:
            context.abort_with_status(rpc_status.to_status(status_of(Unauthenticated())))

        vars(refuse).update(experimental_thread_pool=pool)
        # As a stream it need not wait for a request, and it is the same to all callers.
        self._refusal: Any = grpc.stream_stream_rpc_method_handler(refuse)

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Let pass or refuse."""
        call = handler_call_details
        if call.method.startswith(f"/{HEALTH_SERVICE}/") or self._admits(call.invocation_metadata):
            return continuation(call)
        return self._refusal
