"""Clients that callers share are closed by nobody who still needs them."""

import asyncio
import random
from typing import Any

from mlpserve_web.upstream import MAX_IDLE, Upstream


class Client:
    """A client that takes a while to close, as one that waits for its connection does."""

    def __init__(self) -> None:
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True
        await asyncio.sleep(0)


def test_a_client_that_is_lent_is_not_closed_while_others_end_theirs() -> None:
    made: list[Client] = []

    def connect(_: str | None) -> Any:
        made.append(Client())
        return made[-1]

    async def main() -> None:
        upstream, rng = Upstream(connect), random.Random(0)

        async def caller() -> None:
            for _ in range(20):
                async with upstream.client(str(rng.randrange(2 * MAX_IDLE))) as client:
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                        assert not vars(client)["is_closed"]

        await asyncio.gather(*(caller() for _ in range(100)))
        assert sum(not client.is_closed for client in made) <= MAX_IDLE
        await upstream.close()
        assert all(client.is_closed for client in made)

    asyncio.run(main())
