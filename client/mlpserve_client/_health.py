"""The health check, grpc.health.v1, without its package.

Its two messages have one field each, so their bytes are written and read by hand:
HealthCheckRequest {string service = 1}, HealthCheckResponse {enum status = 1}.
"""

METHOD = "/grpc.health.v1.Health/Check"

_SERVING = b"\x08\x01"  # field 1 as a number: 1


def request(service: str) -> bytes:
    """Return the bytes of a HealthCheckRequest for a service, "" for the whole server."""
    name = service.encode()
    if len(name) > 127:
        raise ValueError("the length of a name beyond 127 bytes takes more than one byte")
    return b"\x0a" + bytes([len(name)]) + name  # field 1 as a string: its length, its bytes


def is_serving(response: bytes) -> bool:
    """Return True if the bytes of a HealthCheckResponse mean SERVING."""
    return response == _SERVING
