"""What a server that follows a bucket is tested with."""

from tests.support.object_store import (
    address,
    draft,
    moto,
    proxy,
    publish,
    short_lease,
    store,
)

__all__ = ["address", "draft", "moto", "proxy", "publish", "short_lease", "store"]
