"""Reflection under both of its names: v1, and v1alpha, which older clients ask for."""

from collections.abc import Iterable, Iterator
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mlpserve_server.transport.pools import PatientPool

__all__ = ["SERVICES", "enable_reflection"]

# grpcio-reflection has v1alpha alone. The messages of v1 are the same on the wire.
SERVICES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)


def enable_reflection(server: grpc.Server, services: Iterable[str], pool: PatientPool) -> None:
    """Let callers ask the server for the contract of these services, on the threads of a pool."""
    servicer = reflection.ReflectionServicer((*services, reflection.SERVICE_NAME))

    def answer(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        # Answers take no time: what takes long is its caller.
        with pool.waits_for(context):
            yield from servicer.ServerReflectionInfo(requests, context)

    vars(answer).update(experimental_thread_pool=pool)
    handler = grpc.stream_stream_rpc_method_handler(
        answer,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in SERVICES:
        methods = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods)])
