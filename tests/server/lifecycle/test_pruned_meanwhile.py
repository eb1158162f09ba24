"""A prune that runs while the server loads what it removes."""

from collections.abc import Callable

import grpc
import pytest

from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import CHAMPION, Store
from tests.support.publishing import Publish
from tests.support.server import Refuse, Serve, Stubs
from tests.support.waiting import eventually

INSTANCE = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[12], data=bytes(12))
FILES = ["manifest.json", "model.npz", "golden.npz"]

Before = Callable[[Stubs, str, Callable[[], object]], list[str]]


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Before:
    """Do something once, just before the server reads a file; the list has its name then."""

    def before(stubs: Stubs, wanted: str, deed: Callable[[], object]) -> list[str]:
        done: list[str] = []
        backend = stubs.manager.store._backend
        read = backend.read

        def reading(name: str, *rest: int) -> bytes:
            if name == wanted and not done:
                done.append(name)
                deed()
            return read(name, *rest)

        monkeypatch.setattr(backend, "read", reading)
        return done

    return before


def version_of(stubs: Stubs) -> int:
    return int(
        stubs.prediction.Predict(pb.PredictRequest(instance=INSTANCE), timeout=10).model.version
    )


@pytest.mark.parametrize("file", FILES)
def test_a_selected_version_that_is_pruned_amid_its_load_is_not_found(
    file: str, publish: Publish, serve: Serve, store: Store, refusal: Refuse, before: Before
) -> None:
    publish()
    second = publish(seed=1)
    stubs = serve(standby=0)
    eventually(stubs.serving)
    done = before(stubs, f"1/{file}", lambda: store.prune(keep=1))
    request = pb.PredictRequest(instance=INSTANCE, model=model_pb2.ModelSelector(version=1))
    assert refusal(stubs.prediction.Predict, request).code == grpc.StatusCode.NOT_FOUND
    assert done
    assert store.versions() == [second]
    assert version_of(stubs) == second
    assert stubs.serving()


@pytest.mark.parametrize("file", FILES)
def test_a_champion_that_is_replaced_and_pruned_amid_its_load_is_passed_over(
    file: str, publish: Publish, serve: Serve, store: Store, before: Before
) -> None:
    publish()
    stubs = serve()
    eventually(stubs.serving)

    def replace() -> None:
        publish(seed=2)
        store.prune(keep=1)

    done = before(stubs, f"2/{file}", replace)
    publish(seed=1)
    eventually(lambda: version_of(stubs) == 3)
    assert done
    assert store.aliases() == {CHAMPION: 3}
    assert store.versions() == [3]
    assert stubs.serving()
