"""What only the asynchronous client can do. Everything else is tested for both at once."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mlpserve_client import AsyncClient, Client, ClientClosedError, ConnectionFailedError
from mlpserve_client._awaited import AwaitedTransport
from mlpserve_client.testing import ModelServer

IMAGE = np.zeros((28, 28), dtype=np.uint8)
METHODS = [name for name in dir(Client) if not name.startswith("_")]


@pytest.mark.parametrize("name", ["__init__", *METHODS])
def test_both_clients_have_the_same_methods_with_the_same_arguments(name: str) -> None:
    blocking = inspect.signature(getattr(Client, name)).parameters
    awaited = inspect.signature(getattr(AsyncClient, name)).parameters

    assert [(p.name, p.kind, p.default) for p in blocking.values()] == [
        (p.name, p.kind, p.default) for p in awaited.values()
    ]


def test_neither_client_has_more_methods_than_the_other() -> None:
    assert [name for name in dir(AsyncClient) if not name.startswith("_")] == METHODS


def test_tasks_share_a_client(server: ModelServer) -> None:
    async def main() -> int:
        async with AsyncClient(server.target) as client:
            answers = await asyncio.gather(*(client.predict(IMAGE) for _ in range(300)))
        return len({answer.label for answer in answers})

    assert asyncio.run(main()) == 1


def test_a_stream_may_be_fed_by_an_asynchronous_iterable(server: ModelServer) -> None:
    async def frames() -> AsyncIterator[npt.NDArray[np.uint8]]:
        for _ in range(5):
            await asyncio.sleep(0)
            yield IMAGE

    async def main() -> int:
        async with AsyncClient(server.target) as client:
            return len([answer async for answer in client.predict_stream(frames())])

    assert asyncio.run(main()) == 5


def test_a_cancelled_task_ends_at_once_and_the_client_goes_on(server: ModelServer) -> None:
    async def main() -> int:
        async with AsyncClient(server.target) as client:
            many = np.zeros((50_000, 784), dtype=np.uint8)
            task = asyncio.create_task(client.predict_batch(many))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await client.predict(IMAGE)).model.version

    assert asyncio.run(main()) == 1


def test_closing_ends_the_calls_of_other_tasks(server: ModelServer) -> None:
    async def forever(client: AsyncClient) -> None:
        while True:
            await client.predict_batch(np.zeros((2000, 784), dtype=np.uint8))

    async def main() -> list[object]:
        client = AsyncClient(server.target)
        tasks = [asyncio.create_task(forever(client)) for _ in range(4)]
        await asyncio.sleep(0.1)
        await client.close()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    assert {type(end) for end in asyncio.run(main())} == {ClientClosedError}


def test_a_client_in_another_event_loop_says_so(server: ModelServer) -> None:
    client = AsyncClient(server.target)
    asyncio.run(client.predict(IMAGE))

    with pytest.raises(ClientClosedError, match="event loop"):
        asyncio.run(client.predict(IMAGE))


def test_blocking_calls_work_while_a_loop_is_running(server: ModelServer) -> None:
    async def main() -> int:
        with Client(server.target) as client:
            return len(list(client.predict_stream([IMAGE] * 3)))

    assert asyncio.run(main()) == 3


def test_health_checks_share_a_connection_until_one_fails(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    original = AwaitedTransport._open

    def counting(self: AwaitedTransport, target: str, *args: Any, **kwargs: Any) -> Any:
        opened.append(target)
        return original(self, target, *args, **kwargs)

    monkeypatch.setattr(AwaitedTransport, "_open", counting)

    async def main() -> None:
        async with AsyncClient(server.target) as client:
            for _ in range(3):
                assert await client.health()
            assert opened == [server.target]
            assert await client.health(timeout=1)
        async with AsyncClient("127.0.0.1:1") as client:
            for _ in range(2):
                with pytest.raises(ConnectionFailedError):
                    await client.health(timeout=1)
        assert opened == [server.target, *["127.0.0.1:1"] * 2]

    asyncio.run(main())
