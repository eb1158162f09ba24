"""Several models are polled beside each other: one that is slow, hangs or fails delays no other."""

import threading
from pathlib import Path
from typing import Any

import pytest

from mlpserve_model import Store
from mlpserve_model.store.listing import ModelListing
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.models import Models
from tests.support.managers import models_following, polled
from tests.support.publishing import publish_to


@pytest.fixture
def root(store: Store) -> Path:
    return store.folder.parent


def hang(owner: object, name: str, until: threading.Event) -> None:
    """Let a method of one object hang until something is set."""
    call = getattr(owner, name)

    def hanging(*arguments: Any) -> Any:
        until.wait(30)
        return call(*arguments)

    setattr(owner, name, hanging)


def version_of(models: Models, name: str) -> int:
    model = models.get(name).current
    return model.manifest.version if model else 0


def test_a_model_that_appears_later_keeps_nobody_waiting_until_it_is_loaded(root: Path) -> None:
    release = threading.Event()

    def make(name: str) -> ModelManager:
        manager = ModelManager(Loader(Store(root, name)), "champion")
        if name == "late":
            hang(manager.loader, "load", release)
        return manager

    publish_to(Store(root, "early"))
    models = Models(["*"], None, make, ModelListing(root).names)
    assert not models.ready
    polled(models, lambda: models.ready)
    publish_to(Store(root, "late"))
    try:
        polled(models, lambda: "late" in models.managers)
        assert models.get("late").current is None
        assert models.ready
    finally:
        release.set()
    polled(models, lambda: version_of(models, "late") == 1)
    models.close()


def test_a_slow_model_delays_no_other(root: Path) -> None:
    for name in ("fast", "slow"):
        publish_to(Store(root, name))
    models = models_following(root, "fast", "slow")
    release = threading.Event()
    slow = models.get("slow")
    hang(slow.loader, "load", release)
    try:
        polled(models, lambda: models.get("fast").current is not None)
        assert slow.current is None
        publish_to(Store(root, "fast"), seed=1)
        polled(models, lambda: version_of(models, "fast") == 2)
        assert slow.current is None
    finally:
        release.set()
    polled(models, lambda: slow.current is not None)


def test_models_that_hang_leave_the_others_one_that_polls_them(root: Path) -> None:
    names = [f"model-{number}" for number in range(10)]
    for name in names:
        publish_to(Store(root, name))
    models = models_following(root, *names)
    release = threading.Event()
    hanging = [models.get(name) for name in names[:3]]
    for manager in hanging:
        hang(manager.loader, "load", release)
    try:
        polled(models, lambda: [version_of(models, name) for name in names] == [0] * 3 + [1] * 7)
        publish_to(Store(root, names[9]), seed=1)
        polled(models, lambda: version_of(models, names[9]) == 2)
    finally:
        release.set()
    polled(models, lambda: all(manager.current for manager in hanging))
    models.close()


def test_a_model_whose_poll_hangs_is_not_taken_for_read(root: Path) -> None:
    """Or the alert for a store that cannot be read would never come."""
    publish_to(Store(root, "a"))
    stamp, release = "one", threading.Event()
    models = Models(
        ["a", "b"],
        None,
        lambda name: ModelManager(Loader(Store(root, name)), "champion", stamp=lambda: stamp),
        list,
    )
    manager = models.get("a")
    polled(models, manager.is_settled)
    hang(manager.store, "aliases", release)
    stamp = "two"
    try:
        models.poll()
        before = manager.last_read
        models.poll()
        assert manager.last_read == before
    finally:
        release.set()
    polled(models, manager.is_settled)
    models.close()


def test_an_unforeseen_failure_of_one_model_is_logged_and_no_others(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "odd"):
        publish_to(Store(root, name))
    models = models_following(root, "good", "odd")

    def fail() -> bool:
        raise RuntimeError("odd")

    monkeypatch.setattr(models.get("odd"), "poll", fail)
    polled(models, lambda: models.get("good").current is not None)
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == ["a follower failed"]


def test_a_model_that_is_gone_before_it_was_tried_keeps_nobody_waiting(root: Path) -> None:
    release, names = threading.Event(), ["early", "gone"]

    def make(name: str) -> ModelManager:
        manager = ModelManager(Loader(Store(root, name)), "champion")
        if name == "gone":
            hang(manager.loader, "load", release)
        return manager

    for name in names:
        publish_to(Store(root, name))
    models = Models(["*"], None, make, lambda: names)
    try:
        polled(models, lambda: models.get("early").current is not None)
        assert not models.ready
        names.remove("gone")
        polled(models, lambda: models.ready)
    finally:
        release.set()
        models.close()
