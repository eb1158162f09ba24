"""What the allocator and connections may keep follows what requests may take."""

import pytest

from mlpserve_server.settings import default_max_bytes
from mlpserve_server.system.memory import kept_by_arenas
from mlpserve_server.transport.services import window_bytes

MEBIBYTE = 2**20
MAXIMA = [8 * MEBIBYTE, 100 * MEBIBYTE, 2**30, 2**31, 2**40]


@pytest.mark.parametrize("max_bytes", MAXIMA)
def test_arenas_keep_a_quarter_of_what_requests_may_take_at_most(max_bytes: int) -> None:
    assert 0 <= kept_by_arenas(max_bytes) <= max_bytes // 4


def test_threads_share_an_arena_in_a_small_container_and_not_where_memory_is_plentiful() -> None:
    assert kept_by_arenas(default_max_bytes(512 * MEBIBYTE, workers=1)) == 0
    plenty = default_max_bytes(2**40, workers=1)
    assert kept_by_arenas(plenty) >= 8 * 64 * MEBIBYTE
    assert kept_by_arenas(2**10 * plenty) < 2**30


@pytest.mark.parametrize("max_bytes", MAXIMA)
def test_two_thousand_connections_send_ahead_no_more_than_requests_may_take(max_bytes: int) -> None:
    smallest = 64 << 10  # HTTP/2's own
    assert window_bytes(max_bytes) == smallest or window_bytes(max_bytes) * 2000 <= max_bytes
    assert smallest <= window_bytes(max_bytes) <= MEBIBYTE
