"""What the tests of the model room share."""

import hashlib
import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from mlpserve_model import (
    CHAMPION,
    CorruptVersion,
    DatasetInfo,
    Draft,
    Manifest,
    Network,
    Signature,
    Store,
    StoreError,
    Verdict,
    Weights,
    initialise,
)
from mlpserve_model.cli import main
from tests.support.forging import EditManifest, Golden, Publish, Rejection, Seal, forget_digests

NETWORK = Network((4, 5, 3))
MAX_MEMORY = 32 * 2**20


@pytest.fixture(scope="session")
def draft() -> Draft:
    return Draft(
        model="tiny",
        network=NETWORK,
        signature=Signature((2, 2), 16.0, ("ash", "birch", "cedar")),
        dataset=DatasetInfo("trees", f"sha256:{'0' * 64}", "80/20"),
        recipe={"epochs": 3, "learning_rate": 0.1},
        seed=7,
        libraries={"numpy": np.__version__},
        metrics={"accuracy": 0.75},
    )


@pytest.fixture(scope="session")
def weights() -> Weights:
    return initialise(NETWORK, np.random.default_rng(1))


@pytest.fixture(scope="session")
def golden() -> Golden:
    return np.random.default_rng(2).random((6, 4), dtype=np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models", "tiny")


@pytest.fixture
def publish(store: Store, draft: Draft, golden: Golden) -> Publish:
    """Publishes a version with weights of the given seed."""

    def publish(
        seed: int = 1, verdict: str = "PROMOTED", files: dict[str, bytes] | None = None
    ) -> Manifest:
        weights = initialise(NETWORK, np.random.default_rng(seed))
        judged = Verdict(verdict, ("as the test says",))
        return store.publish(draft, judged, weights, golden, files or {})

    return publish


@pytest.fixture(scope="session")
def published_folder(
    tmp_path_factory: pytest.TempPathFactory, draft: Draft, weights: Weights, golden: Golden
) -> Path:
    store = Store(tmp_path_factory.mktemp("published"), "tiny")
    store.publish(draft, Verdict("PROMOTED"), weights, golden)
    return store.folder


@pytest.fixture
def published(store: Store, published_folder: Path) -> Manifest:
    """The manifest of version 1 in the store: a copy, since syncing takes its time."""
    shutil.copytree(published_folder, store.folder)
    return store.manifest(1)


@pytest.fixture
def edit_manifest(store: Store) -> EditManifest:
    """Rewrites a version's manifest by a function of its document: a forger's work."""

    def edit(change: Callable[[dict[str, Any]], object], version: int = 1) -> None:
        path = store.path(version) / "manifest.json"
        document = json.loads(path.read_bytes())
        change(document)
        path.write_text(json.dumps(document))
        forget_digests(store)

    return edit


@pytest.fixture
def seal(store: Store, edit_manifest: EditManifest) -> Seal:
    """Replaces a file of a version, and its digest and size in the manifest: a forger's work."""

    def seal(name: str, data: bytes, version: int = 1) -> None:
        (store.path(version) / name).write_bytes(data)
        info = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        edit_manifest(lambda document: document["files"].update({name: info}), version)

    return seal


@pytest.fixture
def rejection() -> Rejection:
    """The message of CorruptVersion, which `read` must raise in little memory."""

    def rejection(read: Callable[[], object]) -> str:
        tracemalloc.start()
        try:
            with pytest.raises(StoreError) as caught:
                read()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert caught.type is CorruptVersion
        assert peak < MAX_MEMORY, f"{peak / 2**20:.1f} MiB"
        return str(caught.value)

    return rejection


class Run(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Run]


@pytest.fixture
def models(store: Store, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs mlpserve-models on the store."""

    def models(command: str, *arguments: str) -> Run:
        where = ["--store", str(store.folder.parent), "--model", "tiny"]
        try:
            code = main([command, *where, *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Run(code, *capsys.readouterr())

    return models


@pytest.fixture
def three(publish: Publish, store: Store) -> None:
    """Version 1, the champion; 2, rejected by the gate; 3, forced."""
    for verdict in ("PROMOTED", "REJECTED", "FORCED"):
        publish(verdict=verdict)
    store.move_alias(CHAMPION, 1, expected=None, event="promote", reason="a test")


@pytest.fixture
def damage(store: Store) -> Callable[[int], None]:
    def damage(version: int) -> None:
        path = store.path(version) / "model.npz"
        path.write_bytes(path.read_bytes()[:-1])

    return damage
