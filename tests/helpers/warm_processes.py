"""Processes that are forked from a warm one, which has imported TensorFlow: they start in a moment, not in seconds.

`WarmPopen([sys.executable, "-m", MODULE, …], …)`, or with `"-c", CODE`, stands for `subprocess.Popen` of the same words
where a test is about what a program does and not about how it starts. The process is a real one with a number, an
environment, a folder and streams of its own, and can be killed. Its parent is the warm process, which has another hash
seed than the tests have.

All processes of a test run share one warm process. Commands that were forked from it ask it, too: `subprocess.Popen` is
`QuickPopen` there, so that the fork server of a sweep, which imports the same, is forked as well.
"""

import contextlib
import functools
import gc
import inspect
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import types
from pathlib import Path

from experiments_manager.common.machine.imports import imported_for_good

ROOT = Path(__file__).parents[2]
IMPORTED = (
    "tensorflow",
    "keras",
    "experiments_manager.cli.main",
    "experiments_manager.training.engine.runner",
    "experiments_manager.monitoring.watchers",
    "experiments_manager.compat.tensorboard",
)
FORK_SERVER = "experiments_manager.sweeps.trials.fork_server"
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_NUMBER = struct.Struct("q")
_MOST = 1 << 20
"""Bytes of a request at the most: words and environment."""
_HIGH = 1000
"""Where descriptors that a process is to have are kept while it has not closed all others."""
_STARTS_WITHIN = 120.0
_USES = b"uses"
"""What a process of the test run says on the connection that it keeps open while it may ask."""


class WarmPopen(subprocess.Popen):
    """A `subprocess.Popen` of a module, or of code, in Python, whose process is forked from the warm one."""

    def _execute_child(self, *values):
        given = inspect.signature(subprocess.Popen._execute_child).bind(self, *values).arguments
        pipes = [given[name] for name in _PIPES]
        words = [os.fspath(word) for word in given["args"]]
        if words[0] != sys.executable or words[1] not in ("-m", "-c"):
            raise ValueError(
                f"a warm process runs modules or code. Expected {sys.executable} -m or -c, got {words[:2]}."
            )
        environment = {name: os.fspath(value) for name, value in (given["env"] or os.environ).items()}
        folder = str(Path(given["cwd"] or ".").absolute())
        kept = [int(number) for number in given["pass_fds"]]
        streams = [end if end != -1 else number for number, end in enumerate((pipes[0], pipes[3], pipes[5]))]
        request = json.dumps([words[1:], folder, environment, bool(given["start_new_session"]), kept]).encode()
        self._status = _connected(_address())
        socket.send_fds(self._status, [request], [*streams, *kept])
        self.pid = _NUMBER.unpack(self._status.recv(_NUMBER.size, socket.MSG_WAITALL))[0]
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags):
        flags = socket.MSG_DONTWAIT if wait_flags else socket.MSG_WAITALL
        try:
            status = self._status.recv(_NUMBER.size, flags)
        except BlockingIOError:
            return 0, 0
        self._status.close()
        return self.pid, _NUMBER.unpack(status)[0]

    def _internal_poll(self, *_, **__):
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


class QuickPopen(subprocess.Popen):
    """A `subprocess.Popen` that forks the fork server of a sweep from the warm process, and starts all else as ever."""

    def __new__(cls, *given, **options):
        args = given[0] if given else options["args"]
        is_fork_server = isinstance(args, list) and args[:3] == [sys.executable, "-m", FORK_SERVER]
        return object.__new__(_WarmForkServer if is_fork_server else cls)


class _WarmForkServer(WarmPopen, QuickPopen):
    pass


def warm_run(command, timeout=None, **options):
    """`subprocess.run` by a `WarmPopen`, with its output as text."""
    with WarmPopen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)


@functools.cache
def _address():
    """The warm process' address, for a process of the test run, until that ends; `main` sets it elsewhere."""
    address = f"\0experiments-manager-warm-{os.environ.get('PYTEST_XDIST_TESTRUNUID') or os.getpid()}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONHASHSEED"] = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    program = f"from {__name__} import main; main({address!r})"
    process, deadline = None, time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            connection = _connected(address)
            break
        except ConnectionRefusedError:
            if process is None:  # of two that are started at a time one finds the address taken, and ends
                process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment)
            if process.poll() or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.send(_USES)
    _keep([connection, process])
    return address


_keep = [].append  # nobody waits for the warm process, and an object that goes would warn of that


def _connected(address):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _serve(listener):
    """Fork a process for each request, tell its number and its end; return the request in the process forked."""
    events, running, users = selectors.DefaultSelector(), {}, 0
    events.register(listener, selectors.EVENT_READ, "call")
    while True:
        for key, _ in events.select():
            if key.data == "call":
                events.register(listener.accept()[0], selectors.EVENT_READ, "request")
            elif key.data == "end":
                events.unregister(key.fd)
                pid, connection = running.pop(key.fd)
                status = os.waitpid(pid, 0)[1]
                with contextlib.suppress(OSError):  # nobody waits for it any more
                    connection.send(_NUMBER.pack(status))
                connection.close()
                os.close(key.fd)
            else:
                connection = key.fileobj
                text, streams, _, _ = socket.recv_fds(connection, _MOST, 16)
                if text == _USES:
                    users += 1
                    events.modify(connection, selectors.EVENT_READ, "user")
                    continue
                events.unregister(connection)
                if not text:
                    connection.close()
                    users -= key.data == "user"
                    if not users:
                        return None
                    continue
                if not (pid := os.fork()):
                    _close(events, connection, *(asking for _, asking in running.values()))
                    return json.loads(text), streams
                connection.send(_NUMBER.pack(pid))
                running[end := os.pidfd_open(pid)] = pid, connection
                events.register(end, selectors.EVENT_READ, "end")
                for stream in streams:
                    os.close(stream)


def _close(events, *connections):
    """Close in a forked process what is the warm one's: later its numbers may be those of other files."""
    for key in list(events.get_map().values()):
        os.close(key.fd) if key.data == "end" else key.fileobj.close()
    for connection in connections:
        connection.close()
    events.close()


def _become(words, folder, environment, own_session, kept, descriptors):
    """Make this process what `python words` in a folder would be, up to its first line."""
    for number, stream in enumerate(descriptors[:3]):
        os.dup2(stream, number)
    for number, descriptor in enumerate(descriptors[3:], _HIGH):
        os.dup2(descriptor, number)
    os.closerange(3, _HIGH)
    for place, number in enumerate(kept, _HIGH):
        os.dup2(place, number)
    os.closerange(_HIGH, _HIGH + 24)
    if own_session:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for name in (__name__, "tests.helpers", "tests"):
        del sys.modules[name]
    sys.path[0] = folder
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = [words[0], *words[2:]]
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "wr"[not number]) for number in range(3))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def main(address):
    """Run the warm process, and in the processes forked from it what they are for."""
    global _address
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(address)
    except OSError:
        return
    listener.listen(64)
    with imported_for_good():  # or each process forked looks for garbage among all of it, and copies its memory by that
        for name in IMPORTED:
            __import__(name)
        gc.collect()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    request = _serve(listener)
    if request is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _address = lambda: address  # noqa: E731
    subprocess.Popen = QuickPopen
    told, descriptors = request
    _become(*told, descriptors)
    _run(*told[0][:2])


def _run(option, program):
    """Run a module, or code, as Python does for the option."""
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), module.__dict__)
