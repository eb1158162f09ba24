"""Reflection under both of its names: v1, and v1alpha, which older clients ask for."""

from collections.abc import Iterable

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

__all__ = ["SERVICES", "enable_reflection"]

# grpcio-reflection has v1alpha alone. The messages of v1 are the same on the wire.
SERVICES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)


def enable_reflection(server: grpc.Server, services: Iterable[str]) -> None:
    """Let callers ask the server for the contract of these services."""
    servicer = reflection.ReflectionServicer((*services, reflection.SERVICE_NAME))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in SERVICES:
        methods = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods)])
