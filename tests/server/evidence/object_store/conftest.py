"""What a server that keeps reports in a bucket is tested with."""

from tests.support.object_store import address, moto, proxy

__all__ = ["address", "moto", "proxy"]
