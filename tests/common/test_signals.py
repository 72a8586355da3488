import os
import signal
import subprocess
import sys
import threading

import pytest

from experiments_manager.common.signals import (
    SHUTDOWN_SIGNALS,
    StopRequested,
    on_shutdown_signal,
    shutdown_event,
    stop_signals,
)

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]


@pytest.mark.parametrize("number", STOPPING)
def test_each_signal_sets_the_flag_and_says_so(number, capfd):
    with stop_signals() as should_stop:
        before = should_stop()
        signal.raise_signal(number)
        assert (before, should_stop()) == (False, True)
    hint = " Press Ctrl-C again to leave at once." if number == signal.SIGINT else ""
    assert capfd.readouterr().err == f"\n{number.name}: stopping at the next step.{hint}\n"


def test_the_handlers_that_were_there_before_come_back():
    before = [signal.getsignal(number) for number in STOPPING]
    with stop_signals():
        assert all(signal.getsignal(number) not in before for number in STOPPING)
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_they_come_back_after_an_error_too():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), stop_signals():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_interrupt_does_what_it_would_have_done_without(capfd):
    with pytest.raises(KeyboardInterrupt), stop_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_first_interrupt_after_a_sigterm_does_not_leave_at_once(capfd):
    with stop_signals() as should_stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
    said = [line.partition(":")[0] for line in capfd.readouterr().err.splitlines() if line]
    assert said == ["SIGTERM", "SIGINT"]


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals() as should_stop:
            signal.raise_signal(signal.SIGINT)
            assert not should_stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_handled():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with stop_signals() as should_stop:
            seen.extend([signal.getsignal(signal.SIGTERM), should_stop()])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]


def test_two_interrupts_end_a_program_by_the_signal_without_a_traceback():
    code = (
        "import signal, time\n"
        "from experiments_manager.common.signals import stop_signals\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the command line does\n"
        "with stop_signals() as should_stop:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        if should_stop():\n"
        "            print('asked', flush=True)\n"
        "            while True:\n"
        "                time.sleep(0.01)  # and not `signal.pause`, which a signal just before it does not end\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, env=os.environ, **pipes) as process:
        for expected in ("ready\n", "asked\n"):
            assert process.stdout.readline() == expected
            process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=20)[1]
    assert process.returncode == -signal.SIGINT
    assert errors == "\nSIGINT: stopping at the next step. Press Ctrl-C again to leave at once.\n"


def test_before_the_first_step_a_signal_raises_where_the_program_is(capfd):
    reached = []
    with stop_signals() as stop:
        with pytest.raises(StopRequested, match="SIGTERM"), stop.interruptible():
            signal.raise_signal(signal.SIGTERM)
            reached.append("code after the signal")
        signal.raise_signal(signal.SIGUSR1)  # outside of the block it is only noted
        assert stop()
    assert reached == []
    assert capfd.readouterr().err == "\nSIGTERM: stopping before the first step.\n"


def test_a_signal_that_came_before_raises_at_the_beginning_of_the_block():
    reached = []
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequested), stop.interruptible():
            reached.append("code in the block")
    assert reached == []


@pytest.mark.parametrize("what_becomes_of_it", ["swallowed", "turned into another error"])
def test_the_block_ends_by_the_request_whatever_code_makes_of_it(what_becomes_of_it):
    with stop_signals() as stop, pytest.raises(StopRequested), stop.interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            if what_becomes_of_it != "swallowed":
                raise ImportError("cannot load the library") from error


def test_an_error_without_a_signal_is_that_error():
    with stop_signals() as stop, pytest.raises(ZeroDivisionError), stop.interruptible():
        raise ZeroDivisionError


def test_the_request_is_raised_once_so_that_what_cleans_up_is_left_alone():
    cleaned = []
    with stop_signals() as stop, pytest.raises(StopRequested), stop.interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)
    assert cleaned == [True]


def test_a_request_that_python_discards_in_a_finalizer_is_raised_again(capfd):
    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with stop_signals() as stop, pytest.raises(StopRequested), stop.interruptible():
        Finalized()
        threading.Event().wait(60)
        pytest.fail("the signal was lost")
    assert "Traceback" not in capfd.readouterr().err


def test_a_second_interrupt_before_the_first_step_leaves_at_once(capfd):
    with stop_signals() as stop, pytest.raises(KeyboardInterrupt) as raised:
        with pytest.raises(StopRequested), stop.interruptible():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert raised.type is KeyboardInterrupt


def test_a_forked_worker_ends_by_the_signal_as_it_did_before():
    with stop_signals() as stop, stop.interruptible():
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def test_a_command_line_listens_before_its_run_and_ignores_signals_between_its_last_words_and_its_death():
    code = (
        "import atexit, signal\n"
        "from experiments_manager.common.signals import StopRequested, install_stop_signals, stop_signals\n"
        "listening = install_stop_signals()\n"
        "atexit.register(signal.raise_signal, signal.SIGTERM)\n"
        "class AtTheVeryEnd:\n"
        "    def __del__(self, raise_signal=signal.raise_signal, number=signal.SIGTERM):\n"
        "        raise_signal(number)\n"
        "listening.at_the_very_end = AtTheVeryEnd()\n"
        "try:\n"
        "    with listening.interruptible():\n"
        "        with stop_signals() as stop:\n"
        "            signal.raise_signal(signal.SIGUSR1)\n"
        "            assert stop is listening and stop()\n"
        "            with stop.interruptible():\n"
        "                assert False\n"
        "except StopRequested:\n"
        "    print('stopped')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr


# Processes that serve


@pytest.mark.parametrize("number", SHUTDOWN_SIGNALS)
def test_a_process_that_serves_waits_for_an_event_that_the_signals_set(number):
    before = [signal.getsignal(other) for other in SHUTDOWN_SIGNALS]
    with shutdown_event() as stopping:
        assert not stopping.is_set()
        signal.raise_signal(number)
        assert stopping.wait(10)
    assert [signal.getsignal(other) for other in SHUTDOWN_SIGNALS] == before


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", SHUTDOWN_SIGNALS)
def test_the_first_signal_acts_in_a_thread_of_its_own_and_later_ones_do_nothing(number):
    acted, threads = threading.Event(), []

    def act():
        threads.append(threading.current_thread())
        acted.set()

    with on_shutdown_signal(act):
        os.kill(os.getpid(), number)
        assert acted.wait(10)
        for other in SHUTDOWN_SIGNALS:
            os.kill(os.getpid(), other)
    threads[0].join(10)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_the_handlers_from_before_are_in_force_again_afterwards():
    before = [signal.getsignal(number) for number in SHUTDOWN_SIGNALS]
    with on_shutdown_signal(lambda: None):
        assert [signal.getsignal(number) for number in SHUTDOWN_SIGNALS] != before
        names = [thread.name for thread in threading.enumerate()]
        assert "signals" in names
    assert [signal.getsignal(number) for number in SHUTDOWN_SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_without_a_signal_nothing_is_left_behind():
    before = set(threading.enumerate())
    with on_shutdown_signal(pytest.fail):
        [thread] = [new for new in set(threading.enumerate()) - before if new.name == "signals"]
    thread.join(10)
    assert not thread.is_alive()
