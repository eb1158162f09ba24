"""A local copy of an object store that several processes keep together."""

import threading
from pathlib import Path

import pytest

from mlpserve_model import Store
from mlpserve_model.store.cache import CachedStore
from mlpserve_model.store.location import Bucket
from tests.support.object_store import PublishTo

READERS, VERSIONS = 4, 3


def test_readers_that_share_a_copy_keep_every_version_whole(
    store: Store, publish: PublishTo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(store.root, Bucket)
    readers = [CachedStore(store.root, store.model, tmp_path, keep=2) for _ in range(READERS)]
    together = threading.Barrier(READERS)

    def load(reader: CachedStore, version: int) -> None:
        reader.aliases()
        together.wait()
        reader.load(version)

    for seed in range(VERSIONS):
        version = publish(seed=seed)
        threads = [threading.Thread(target=load, args=(reader, version)) for reader in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for reader in readers:
            assert reader.last_seen
            reader.last_seen.verify(version)
    assert "the cache cannot be written" not in caplog.text
