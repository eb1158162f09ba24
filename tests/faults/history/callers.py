"""Clients that call without pause, and keep a record of every call."""

import random
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import grpc

from mlpserve_client import Client, MlpserveError, Tls
from mlpserve_model import CHAMPION
from tests.faults.history.publisher import INPUTS
from tests.faults.history.records import SERVED, Call, Release
from tests.support.tcp_proxy import Door

__all__ = ["Caller", "recorded"]

_PAUSE_SECONDS = 0.01
_BATCHES = 0.1  # the share of calls with all inputs, in several requests
_RECENT = 4  # versions that calls select by number


@dataclass(frozen=True)
class _Route:
    """A client of the library, and where its calls can go."""

    client: Client
    replicas: tuple[int, ...]
    doors: Sequence[Door]

    def connection(self) -> str:
        """Return what changes with the connection; "" where there are several."""
        if len(self.doors) > 1:
            return ""
        (door,) = self.doors
        return f"{door.port}#{door.accepted}"


class Caller:
    """Calls all replicas by one client, and one of them by another, in turns.

    Args:
        number: its number.
        everywhere: the doors to all replicas.
        one: the door to one replica.
        replica: number of that one.
        tls: how to connect.
        releases: versions that are known, to select some; grows while it calls.

    """

    def __init__(
        self,
        number: int,
        everywhere: Sequence[Door],
        one: Door,
        replica: int,
        tls: Tls,
        releases: dict[int, Release],
    ) -> None:
        self.calls: list[Call] = []
        self._number = number
        self._releases = releases
        self._random = random.Random(number)
        everyone = Client([door.address for door in everywhere], tls=tls)
        self._routes = [
            _Route(everyone, tuple(range(len(everywhere))), everywhere),
            _Route(Client(one.address, tls=tls), (replica,), [one]),
        ]

    def run(self, done: threading.Event) -> None:
        """Call until `done`."""
        while not done.wait(_PAUSE_SECONDS):
            for route in self._routes:
                self.calls.append(self._call(route, self._selector()))
        for route in self._routes:
            route.client.close()

    def _selector(self) -> str:
        chance = self._random.random()
        if chance < 0.75:
            return SERVED
        if chance < 0.85:
            return CHAMPION
        known = sorted(self._releases)
        return str(self._random.choice(known[-_RECENT:]))

    def _call(self, route: _Route, selector: str) -> Call:
        is_batch = self._random.random() < _BATCHES
        rows = slice(None) if is_batch else self._random.randrange(len(INPUTS))
        predict = route.client.predict_batch if is_batch else route.client.predict
        before = route.connection()
        call = Call(
            client=self._number, replicas=route.replicas, connection="", selector=selector,
            rows=rows, began=time.monotonic(), ended=0.0,
        )  # fmt: skip
        try:
            answer = predict(
                INPUTS[rows],
                version=int(selector) if selector.isdecimal() else None,
                alias=CHAMPION if selector == CHAMPION else None,
            )
        except MlpserveError as error:
            code = _code_of(error)
            return replace(call, ended=time.monotonic(), code=code, message=str(error))
        return replace(
            call, ended=time.monotonic(), connection=before if route.connection() == before else "",
            version=answer.model.version, digest=answer.model.digest,
            probabilities=answer.probabilities,
        )  # fmt: skip


def _code_of(error: MlpserveError) -> str:
    cause = error.__cause__
    return cause.code().name if isinstance(cause, grpc.RpcError) else type(error).__name__


def recorded(callers: Iterable[Caller]) -> list[Call]:
    """Return the calls of all, in the order of each."""
    return [call for caller in callers for call in caller.calls]
