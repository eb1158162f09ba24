"""Writers at once, writers that are killed, writers that fall silent."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from mlpserve_model import CHAMPION, AliasConflict, Store, StoreBusy, StoreError, VersionNotFound
from mlpserve_model.store import object_backend as bucket
from mlpserve_model.store.backend import Conflict
from mlpserve_model.store.object_client import Objects
from tests.support.object_store import Proxy, PublishTo
from tests.support.patching import patch_method_of

from .test_faults import assert_whole, requests_of_publishing

# Publishes and promotes COUNT times; prints what was acknowledged.
PUBLISHER = """
import sys
import numpy as np
from mlpserve_model import *
from mlpserve_model.store import object_backend as bucket

bucket.LEASE_SECONDS = float(sys.argv[4])
root, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(seed)
network = Network((16, 32, 3))
draft = Draft(
    model="tiny", network=network, signature=Signature((16,), 1.0, ("a", "b", "c")),
    dataset=DatasetInfo("d", "sha256:0", "none"), recipe={}, seed=seed,
    libraries={}, metrics={},
)
promoted = Verdict("PROMOTED")
store = Store(root, "tiny")
print("ready", flush=True)
for _ in range(count):
    with store.lock():
        previous = store.aliases().get(CHAMPION)
        golden = rng.random((8, 16), dtype=np.float32)
        version = store.publish(draft, promoted, initialise(network, rng), golden).version
        store.move_alias(CHAMPION, version, expected=previous, event="promote", reason="newest")
    print(version, flush=True)
"""


def start(address: str, count: int, seed: int, lease: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PUBLISHER, address, str(count), str(seed), str(lease)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def acknowledged(output: str) -> list[int]:
    return [int(number) for number in output.split()[1:]]


@pytest.mark.parametrize("each", [3, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.timeout(300)
def test_four_publishers_at_once_get_different_versions_and_the_champion_never_goes_back(
    each: int, address: str, store: Store
) -> None:
    children = [start(address, each, seed, lease=30) for seed in range(4)]
    champions = []
    while any(child.poll() is None for child in children):
        champions.append(store.aliases().get(CHAMPION, 0))
        time.sleep(0.1)
    outputs = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0, 0], outputs
    published = [n for out, _ in outputs for n in acknowledged(out)]
    assert sorted(published) == store.versions() == list(range(1, 4 * each + 1))
    assert_whole(store, set(published))
    assert champions == sorted(champions)
    assert store.resolve(CHAMPION) == 4 * each
    promoted = [e["version"] for e in store.history() if e["event"] == "promote"]
    assert promoted == list(range(1, 4 * each + 1))
    for version in store.versions():
        store.verify(version)
    print(f"\n{len(published)} versions, the champion looked at {len(champions)} times")


def kill_at_requests(
    step: int, address: str, store: Store, publish: PublishTo, proxy: Proxy, lease: float
) -> None:
    """Kill a publisher before every `step`th of its requests, and look at what it leaves."""
    publish(to=Store(address, "tiny"))
    proxy.requests.clear()
    with start(address, 1, 0, lease=30) as child:  # a short one is renewed by a slow machine
        child.communicate()
    count, known, killed = len(proxy.requests), {1, 2}, 0
    for place in range(step // 2, count, step):
        with start(address, 1, place, lease) as child:
            proxy.fault = killer(child, place)
            known |= set(acknowledged(child.communicate()[0]))
            killed += child.returncode == -9
        proxy.fault = lambda request: None
        assert_whole(store, known)
        known.add(publish(to=Store(address, "tiny")))
        assert max(known) == max(store.versions())
    print(f"\n{killed} killed before {count} requests, {len(known)} versions")
    assert killed == len(range(step // 2, count, step))


def killer(child: "subprocess.Popen[str]", place: int) -> Callable[[str], str | None]:
    count = iter(range(10**6))

    def fault(request: str) -> str | None:
        if next(count) < place:
            return None
        child.kill()
        return "reset"

    return fault


@pytest.mark.timeout(300)
def test_a_publisher_killed_before_a_request_leaves_whole_versions_or_none(
    address: str, store: Store, publish: PublishTo, proxy: Proxy, short_lease: float
) -> None:
    kill_at_requests(8, address, store, publish, proxy, short_lease)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_publisher_killed_before_any_request_leaves_whole_versions_or_none(
    address: str,
    store: Store,
    publish: PublishTo,
    proxy: Proxy,
    short_lease: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kill_at_requests(1, address, store, publish, proxy, short_lease)
    monkeypatch.setattr(bucket, "LITTER_SECONDS", -1.0)
    publish(to=Store(address, "tiny"))
    names = [entry.name for entry in store._backend._objects.list()]  # type: ignore[attr-defined]
    assert {int(name.split("/")[0]) for name in names if "/" in name} == set(store.versions())


@pytest.fixture
def without_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers whose lock keeps nobody out: what remains are the conditional puts."""
    patch_method_of(
        monkeypatch,
        Store,
        "lock",
        lambda opened: str(opened) == str(store),
        lambda opened, timeout=0: contextlib.nullcontext(),
    )


def at_once(deeds: Sequence[Callable[[], Any]]) -> list[BaseException]:
    """Do all this in threads that begin together; what they raised."""
    start, raised = threading.Barrier(len(deeds)), list[BaseException]()

    def do(deed: Callable[[], Any]) -> None:
        start.wait()
        try:
            deed()
        except StoreError as error:
            raised.append(error)

    threads = [threading.Thread(target=do, args=(deed,)) for deed in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def publish_after_the_same_look(
    address: str, proxy: Proxy, publish: PublishTo
) -> list[BaseException]:
    """Two publish at once, and none goes on before the other has seen which numbers are taken."""
    together = threading.Barrier(2)

    def wait(request: str) -> None:
        if request == "GET a listing":
            together.wait(30)

    def deed(seed: int) -> Callable[[], int]:
        return lambda: int(publish(seed=seed, promote=False, to=Store(address, "tiny")))

    proxy.before_answer = wait
    raised = at_once([deed(1), deed(2)])
    proxy.before_answer = lambda request: None
    return raised


def test_two_that_claim_the_same_number_at_once_get_two(
    address: str, store: Store, publish: PublishTo, proxy: Proxy, without_lock: None
) -> None:
    for _ in range(3):
        proxy.requests.clear()
        assert publish_after_the_same_look(address, proxy, publish) == []
        claims = [r for r in proxy.requests if r.startswith("PUT") and r.endswith("claim.json")]
        assert len(claims) == 3  # one was refused, and claimed the next number
    assert store.versions() == [1, 2, 3, 4, 5, 6]
    for version in store.versions():
        store.verify(version)
    assert len(store.history()) == 6


def test_without_conditions_two_that_claim_the_same_number_are_caught(
    address: str,
    store: Store,
    publish: PublishTo,
    proxy: Proxy,
    without_lock: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put = Objects.put

    def put_anyway(self: Objects, name: str, data: bytes, instead_of: Any = None) -> Any:
        while True:
            with contextlib.suppress(Conflict):
                return put(self, name, data, self.find(name))

    patch_method_of(
        monkeypatch, Objects, "put", lambda each: str(each).startswith(address), put_anyway
    )
    publish_after_the_same_look(address, proxy, publish)
    assert store.versions() == [1]


@pytest.mark.parametrize("locked", [True, False])
def test_of_many_moves_at_once_from_one_place_one_wins(
    locked: bool, address: str, store: Store, publish: PublishTo, request: pytest.FixtureRequest
) -> None:
    for seed in range(6):
        publish(seed=seed, promote=False)
    if not locked:
        request.getfixturevalue("without_lock")

    def move(version: int) -> None:
        own = Store(address, "tiny")
        own.move_alias(CHAMPION, version, expected=None, event="promote", reason="a race")

    raised = at_once([partial(move, version) for version in range(1, 7)])
    assert [type(error) for error in raised] == [AliasConflict] * 5
    assert store.aliases().keys() == {CHAMPION}


def test_a_writer_that_falls_silent_loses_the_lock_and_its_version_never_appears(
    address: str,
    store: Store,
    publish: PublishTo,
    short_lease: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    silent = Store(address, "tiny")
    with silent.lock():
        version = silent._backend.claim(above=0)
        silent._backend.write(f"{version}/model.npz", b"half")
        other = publish(to=Store(address, "tiny"))
        assert other == version + 1
        with pytest.raises(OSError, match=r"took the lock over after 0\.4 s of silence"):
            silent._backend.write(f"{version}/manifest.json", b"late")
    assert store.versions() == [other]
    assert "took over the lock" in caplog.text
    publish(to=Store(address, "tiny"))


def test_a_writer_that_works_on_keeps_the_lock_beyond_its_lease(
    address: str, store: Store, short_lease: float
) -> None:
    working, other = Store(address, "tiny"), Store(address, "tiny")
    with working.lock():
        deadline = time.monotonic() + 4 * short_lease
        while time.monotonic() < deadline:
            working.record("note", 1, "still here")
            with (
                pytest.raises(StoreBusy, match=r"is held by .+@.+ for more than 0 s"),
                other.lock(0),
            ):
                pass
            time.sleep(short_lease / 5)
    with other.lock(timeout=0):
        pass


def test_a_lock_is_waited_for_and_taken_as_soon_as_it_is_free(address: str) -> None:
    first, second = Store(address, "tiny"), Store(address, "tiny")
    order = []

    def wait() -> None:
        with second.lock():
            order.append("second")

    thread = threading.Thread(target=wait)
    with first.lock():
        thread.start()
        time.sleep(0.5)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


@pytest.fixture
def publishing(address: str, publish: PublishTo) -> Iterator[threading.Event]:
    """While the test runs, somebody publishes, promotes and prunes."""
    stop = threading.Event()

    def work() -> None:
        own, seed = Store(address, "tiny"), 0
        while not stop.is_set():
            publish(seed=seed, to=own)
            own.prune(1)
            seed += 1

    thread = threading.Thread(target=work)
    thread.start()
    yield stop
    stop.set()
    thread.join()


def test_a_reader_beside_writers_and_pruners_sees_whole_versions_or_none(
    store: Store, publish: PublishTo, publishing: threading.Event
) -> None:
    seen = set[int]()
    while len(seen) < 5:
        for version in store.versions():
            with contextlib.suppress(VersionNotFound):  # pruned meanwhile
                seen.add(store.load(version).manifest.version)
    print(f"\n{len(seen)} versions read while they came and went")


def test_requests_of_a_publication_are_few(
    address: str, store: Store, publish: PublishTo, proxy: Proxy
) -> None:
    requests = requests_of_publishing(proxy, publish, Store(address, "tiny"))
    counted = " ".join(requests)
    print(f"\n{len(requests)} requests to publish and promote:\n{counted}")
    assert len(requests) <= 30
