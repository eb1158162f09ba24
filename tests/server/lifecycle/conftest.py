"""A shadow beside a data plane, and a challenger for it."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from mlpserve.v1 import model_pb2
from mlpserve.v1 import prediction_pb2 as pb
from mlpserve_model import Store
from mlpserve_model.process.follower import Follower
from mlpserve_server.dataplane.inference import Inference
from mlpserve_server.dataplane.predictions import DataPlane, complete
from mlpserve_server.lifecycle.loader import Loader
from mlpserve_server.lifecycle.manager import ModelManager
from mlpserve_server.lifecycle.shadow import DROPPED, ROWS, Shadow
from mlpserve_server.observability.observer import Observer
from tests.support.managers import models_of
from tests.support.publishing import Publish

AS_MANY_AS_THERE_ARE = 1e9


class Tally(Observer):
    """Adds up what is counted."""

    def __init__(self) -> None:
        self.totals: dict[tuple[str, ...], float] = defaultdict(float)

    def count(self, metric: str, *labels: str, amount: float = 1) -> None:
        self.totals[metric, *labels] += amount

    def compared(self, version: int = 2) -> float:
        return sum(self.totals[ROWS, "mnist", str(version), how] for how in ("agreed", "differed"))

    @property
    def dropped(self) -> float:
        return self.totals[DROPPED,]


class Setup:
    """A data plane with a shadow, and what they report."""

    def __init__(self, store: Store, rate: float, serve: str = "champion") -> None:
        self.tally = Tally()
        self.busy = False
        self.manager = ModelManager(Loader(store, 3, self.tally), serve, "challenger")
        self.manager.poll()
        self.shadow = Shadow(models_of(self.manager), rate, lambda: self.busy, self.tally)
        self.data = DataPlane(
            models_of(self.manager), 8192, Inference(8192, self.tally, self.shadow)
        )

        self.follower = Follower("shadow", self.shadow.work_off, 0.01)

    def start(self) -> None:
        """Begin to compare."""
        self.shadow.start()
        self.follower.start()

    def stop(self) -> None:
        """Compare no more."""
        self.shadow.stop()
        self.follower.join()

    def has_compared(self, version: int, rows: int) -> bool:
        return self.tally.compared(version) == rows

    def predict(self, x: NDArray[np.float32], version: int | None = None) -> Any:
        """Probabilities of one batch."""
        model = model_pb2.ModelSelector(version=version) if version else None
        tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=x.shape, data=x.tobytes())
        request = pb.BatchPredictRequest(instances=tensor, model=model)
        steps = self.data.batch_predict(request.SerializeToString())
        answer = pb.BatchPredictResponse.FromString(complete(steps, lambda: True).response)
        return np.frombuffer(answer.probabilities.data, "<f4").reshape(len(x), -1)


class SetUp(Protocol):
    """Puts a shadow beside a data plane; it is stopped after the test."""

    def __call__(self, rate: float = ..., **options: Any) -> Setup: ...


class Challenge(Protocol):
    """Publishes a challenger."""

    def __call__(self, seed: int, **changes: Any) -> int: ...


@pytest.fixture
def transport() -> str:
    """Which version answers is decided before a transport carries the answer."""
    return "auto"


@pytest.fixture
def set_up(store: Store) -> Iterator[SetUp]:
    """Put a shadow beside a data plane; it is stopped after the test."""
    running = []

    def set_up(rate: float = AS_MANY_AS_THERE_ARE, **options: Any) -> Setup:
        running.append(Setup(store, rate, **options))
        return running[-1]

    yield set_up
    for setup in running:
        setup.stop()


@pytest.fixture
def challenge(store: Store, publish: Publish) -> Challenge:
    """Publish a challenger."""

    def challenge(seed: int, **changes: Any) -> int:
        version = publish(seed=seed, promote=False, **changes)
        was = store.aliases().get("challenger")
        store.move_alias("challenger", version, expected=was, event="promote", reason="test")
        return version

    return challenge
