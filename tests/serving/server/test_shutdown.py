import os
import signal
import threading

import pytest

from experiments_manager.serving.server.shutdown import SIGNALS, on_shutdown_signal


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_acts_in_a_thread_of_its_own_and_later_ones_do_nothing(number):
    acted, threads = threading.Event(), []

    def act():
        threads.append(threading.current_thread())
        acted.set()

    with on_shutdown_signal(act):
        os.kill(os.getpid(), number)
        assert acted.wait(10)
        for other in SIGNALS:
            os.kill(os.getpid(), other)
    threads[0].join(10)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_the_handlers_from_before_are_in_force_again_afterwards():
    before = [signal.getsignal(number) for number in SIGNALS]
    with on_shutdown_signal(lambda: None):
        assert [signal.getsignal(number) for number in SIGNALS] != before
        names = [thread.name for thread in threading.enumerate()]
        assert "signals" in names
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_without_a_signal_nothing_is_left_behind():
    before = set(threading.enumerate())
    with on_shutdown_signal(pytest.fail):
        [thread] = [new for new in set(threading.enumerate()) - before if new.name == "signals"]
    thread.join(10)
    assert not thread.is_alive()
