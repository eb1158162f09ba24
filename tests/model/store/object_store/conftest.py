"""What a store in a bucket is tested with."""

from tests.support.object_store import (
    address,
    draft,
    eventually,
    moto,
    proxy,
    publish,
    short_lease,
    store,
)

__all__ = ["address", "draft", "eventually", "moto", "proxy", "publish", "short_lease", "store"]
