"""Many calls at once with the same request."""

from collections import Counter
from contextlib import ExitStack
from typing import Any

import grpc

__all__ = ["BATCH_PREDICT", "INFER", "PREDICT", "call_at_once"]

PREDICT = "/mlpserve.v1.PredictionService/Predict"
BATCH_PREDICT = "/mlpserve.v1.PredictionService/BatchPredict"
INFER = "/inference.GRPCInferenceService/ModelInfer"


def call_at_once(
    address: str, method: str, request: bytes, count: int, connections: int = 8
) -> Counter[grpc.StatusCode]:
    """Send requests over this many connections; return how often each code came."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(address, options)) for _ in range(connections)
        ]
        stubs: list[Any] = [channel.unary_unary(method) for channel in channels]
        calls = [stubs[i % connections].future(request, timeout=120) for i in range(count)]
        return Counter(call.code() for call in calls)
