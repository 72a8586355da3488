"""Which connections there may be, and how quickly bytes must come."""

import asyncio

import pytest

from experiments_manager.serving.api.http import connection_limits
from experiments_manager.serving.api.http.connection_limits import LEAST_RATE, ConnectionTable, TransferRate


class OpenConnection:
    def __init__(self):
        self.hung_up, self.checked = False, asyncio.Event()

    def hang_up(self):
        self.hung_up = True

    def check(self, now):
        self.checked.set()


def test_new_connections_are_closed_before_idle_ones_and_busy_ones_never(run_async):
    async def happen():
        found = ConnectionTable(3)
        busy, asked, stranger, *others = (OpenConnection() for _ in range(6))
        for member in (busy, asked, stranger):
            assert found.admit(member)
        found.busy(busy)
        found.busy(asked)
        found.waiting(asked)
        assert found.admit(others[0])
        assert (asked.hung_up, stranger.hung_up) == (False, True)
        found.busy(others[0])
        assert found.admit(others[1])
        assert asked.hung_up
        found.busy(others[1])
        assert not found.admit(others[2])
        found.forget(busy)
        assert found.admit(others[2])
        assert not any(member.hung_up for member in (busy, *others))

    run_async(happen())


def test_a_connection_that_was_closed_while_it_was_answered_is_not_waited_for(run_async):
    async def happen():
        found, member = ConnectionTable(1), OpenConnection()
        found.admit(member)
        found.busy(member)
        found.forget(member)
        found.waiting(member)
        other = OpenConnection()
        assert found.admit(other)
        assert not found._idle

    run_async(happen())


def test_every_connection_is_looked_at_again_and_again(run_async, monkeypatch):
    monkeypatch.setattr(connection_limits, "PERIOD", 0.01)

    async def happen():
        found, member, looks = ConnectionTable(3), OpenConnection(), 0
        found.admit(member)
        found.watch()
        while looks < 3:
            await asyncio.wait_for(member.checked.wait(), 60)
            member.checked.clear()
            looks += 1
        found.end()
        return looks

    assert run_async(happen()) == 3


@pytest.mark.parametrize(
    ("looks", "slow"),
    [
        ([(9, 0), (10, 100)], False),
        ([(11, 0)], True),
        ([(11, 10 * LEAST_RATE - 1)], True),
        ([(11, 10 * LEAST_RATE)], False),
        ([(11, 1000 * LEAST_RATE), (22, 1000 * LEAST_RATE)], True),  # what came early counts for the first ten seconds
        ([(11, 10 * LEAST_RATE), (22, 20 * LEAST_RATE)], False),
        ([(9, -100), (18, -100)], False),  # fewer: others have begun
        ([(9, -100), (20, -100)], True),
    ],
)
def test_bytes_must_keep_to_a_pace(looks, slow):
    pace = TransferRate(0.0)
    assert [pace.is_too_slow(now, count, 10.0) for now, count in looks][-1] is slow
