"""One model is swapped, rolled back and damaged under calls to it and to others: none fails."""

import random
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mlpserve_client import Client
from mlpserve_model import CHAMPION, Store
from tests.support.publishing import publish_to
from tests.support.system import CallingThreads, RunServer
from tests.support.waiting import eventually
from tests.system.conftest import DRAFT

NAMES = ("changing", "still-a", "still-b")
ROWS = np.random.default_rng(1).random((16, 64), dtype=np.float32)

# The digest of a version and its answers to the rows, by model and number.
Published = dict[tuple[str, int], tuple[str, NDArray[np.float32]]]
Answer = tuple[str, int, str, int, NDArray[np.float32]]


class ModelCallers(CallingThreads):
    """Threads with a connection each that call models at random and keep what they got."""

    def __init__(self, target: str, connections: int) -> None:
        super().__init__(connections)
        self.answers: list[Answer] = []
        self._target = target

    def wait_for(self, version: int) -> None:
        """Wait until a call gets this version of the model that changes."""
        seen = len(self.answers)

        def answered() -> bool:
            return ("changing", version) in {answer[:2] for answer in self.answers[seen:]}

        eventually(answered)

    def call(self, number: int) -> None:
        """Call models and rows that are drawn by the number."""
        drawn = random.Random(number)
        with Client(self._target, timeout=60) as client:
            while not self.done.is_set():
                row, name = drawn.randrange(len(ROWS)), drawn.choice(NAMES)
                try:
                    answer = client.predict(ROWS[row].reshape(8, 8), model=name)
                except Exception as error:
                    self.failures.append(f"{name}: {error!r}")
                    continue
                ref = answer.model
                found = np.asarray(answer.probabilities, np.float32)
                self.answers.append((ref.name, ref.version, ref.digest, row, found))
                time.sleep(self.pause)


def differing(answers: list[Answer], published: Published) -> set[tuple[str, int, str]]:
    """The models, versions and digests whose answers are not those of the published weights."""
    found = set()
    for name, version, digest, row, probabilities in answers:
        known, expected = published.get((name, version), ("", ROWS))
        is_right = digest == known and np.allclose(probabilities, expected[row], rtol=0, atol=1e-6)
        if not is_right:
            found.add((name, version, digest))
    return found


@pytest.fixture
def published() -> Published:
    return {}


@pytest.fixture
def publish(store: Store, published: Published) -> Callable[..., int]:
    """Publish a version of a model with weights of its own, and keep what it answers."""
    seeds = count()
    root = store.folder.parent

    def publish(name: str, promote: bool = True) -> int:
        own = Store(root, name)
        version = publish_to(own, next(seeds), promote=promote, draft=DRAFT)
        model = own.load(version)
        published[name, version] = model.manifest.digest, model.predict(ROWS)
        return version

    return publish


def promote(store: Store, version: int) -> None:
    with store.lock():
        before = store.aliases().get(CHAMPION)
        store.move_alias(CHAMPION, version, expected=before, event="promote", reason="test")


def damage(root: Path, version: int) -> None:
    (root / "changing" / str(version) / "model.npz").write_bytes(b"not an archive")


@pytest.mark.parametrize(
    ("connections", "rounds"), [(8, 3), pytest.param(64, 30, marks=pytest.mark.slow)]
)
def test_what_happens_to_one_model_fails_no_call_to_any(
    store: Store,
    run_server: RunServer,
    publish: Callable[..., int],
    published: Published,
    connections: int,
    rounds: int,
) -> None:
    root = store.folder.parent
    first = {name: publish(name) for name in NAMES}
    address, _ = run_server("--model", "*", "--workers", "2")
    for name in NAMES:
        with Client(address, model=name) as client:
            client.wait_until_ready(timeout=20)
    changing = Store(root, "changing")
    broken = set()
    with ModelCallers(address, connections) as callers:
        for _ in range(rounds):
            callers.wait_for(second := publish("changing"))
            promote(changing, first["changing"])  # back
            callers.wait_for(first["changing"])
            damage(root, second)
            broken.add(torn := publish("changing", promote=False))
            damage(root, torn)
            promote(changing, torn)
            callers.wait_for(first["changing"])
    print(f"\n{len(callers.answers)} calls from {connections} connections, {rounds} rounds")
    assert callers.failures == []
    assert differing(callers.answers, published) == set()
    versions = {(name, version) for name, version, *_ in callers.answers}
    assert versions.isdisjoint(("changing", version) for version in broken)
    assert {name for name, _ in versions} == set(NAMES)
    assert all(version == first[name] for name, version in versions if name != "changing")


def test_the_comparison_of_answers_has_teeth(
    publish: Callable[..., int], published: Published
) -> None:
    publish("changing")
    digest, answers = published["changing", 1]
    right: Answer = ("changing", 1, digest, 3, answers[3])
    assert not differing([right], published)
    for wrong in (
        ("changing", 1, digest, 4, answers[3]),
        ("changing", 1, "sha256:0", 3, answers[3]),
        ("still-a", 1, digest, 3, answers[3]),
    ):
        assert differing([wrong], published)
