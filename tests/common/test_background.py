import threading

import pytest

from experiments_manager.common.background import OrderedWorker


@pytest.fixture
def worker():
    """A worker with room for two jobs that wait."""
    worker = OrderedWorker("test", most=2)
    yield worker
    worker.close()


def test_jobs_are_done_in_their_order_by_another_thread(worker):
    done = []
    for number in range(100):
        worker.submit(lambda number=number: done.append((number, threading.current_thread().name)))
    worker.wait()
    assert done == [(number, "test") for number in range(100)]


def test_who_hands_in_more_than_may_wait_waits_until_one_is_taken(worker):
    begun, go_on, handed_in = threading.Event(), threading.Event(), threading.Event()

    def hold():
        begun.set()
        go_on.wait()

    def hand_in_three():
        for _ in range(3):
            worker.submit(lambda: None)
        handed_in.set()

    worker.submit(hold)
    begun.wait()
    other = threading.Thread(target=hand_in_three)
    other.start()
    assert not handed_in.wait(0.2)
    go_on.set()
    assert handed_in.wait(60)
    other.join()


def test_at_the_close_all_that_waits_is_done_and_no_more_is_taken():
    worker, go_on, done = OrderedWorker("test"), threading.Event(), []
    worker.submit(go_on.wait)
    worker.submit(lambda: done.append("last"))
    go_on.set()
    worker.close()
    assert done == ["last"]
    with pytest.raises(RuntimeError, match="was closed"):
        worker.submit(lambda: None)


def test_waiting_for_nothing_ends_at_once_also_after_the_close():
    worker = OrderedWorker("test")
    worker.wait()
    worker.close()
    worker.close()
    worker.wait()
    assert worker.closed
