"""Reflection under both of its names: v1, and v1alpha, which older clients ask for."""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mlpserve_server.dataplane import codec
from mlpserve_server.errors import Abandoned, NoRequest
from mlpserve_server.transport.call_pool import CallPool
from mlpserve_server.transport.handlers import map_errors, small
from mlpserve_server.transport.services import SMALL_BYTES

__all__ = ["METHODS", "enable_reflection"]

# grpcio-reflection has v1alpha alone. The messages of v1 are the same on the wire.
_SERVICES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)
_METHOD = "ServerReflectionInfo"
METHODS = tuple(f"/{service}/{_METHOD}" for service in _SERVICES)


def enable_reflection(server: grpc.Server, services: Iterable[str], pool: CallPool) -> None:
    """Let callers ask the server for the contract of these services, on the threads of a pool."""
    servicer = reflection.ReflectionServicer((*services, reflection.SERVICE_NAME))

    @map_errors
    def next_request(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        """Return the next request, None at the end of the stream."""
        try:
            request = small(pool.reads.read(requests, context, 0, SMALL_BYTES))
        except (NoRequest, Abandoned):
            return None
        return codec.parse(reflection_pb2.ServerReflectionRequest, request)

    def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        while (request := next_request(requests, context)) is not None:
            # Answers take no time: what takes long is its caller.
            with pool.waits_for(context):
                yield from servicer.ServerReflectionInfo(iter([request]), context)

    vars(answer).update(experimental_thread_pool=pool)
    handler: grpc.RpcMethodHandler[bytes, Any] = grpc.stream_stream_rpc_method_handler(
        answer, response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString
    )
    for name in _SERVICES:
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(name, {_METHOD: handler})]
        )
