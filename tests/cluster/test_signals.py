import os
import signal
import subprocess
import sys
import threading

import pytest

from experiments_manager.cluster import stop_signals

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
        "from experiments_manager.cluster import stop_signals\n"
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
