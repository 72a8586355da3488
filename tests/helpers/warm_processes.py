"""Processes that are forked from a warm one, which has imported TensorFlow: they start in a moment, not in seconds.

`WarmPopen([sys.executable, "-m", MODULE, …], …)`, or with `"-c", CODE`, stands for `subprocess.Popen` of the same words
where a test is about what a program does and not about how it starts. The process is a real one with a number, an
environment, a folder and streams of its own, and can be killed. Its hash seed and its parent are the warm process'.
"""

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
import threading
import types
from pathlib import Path

from experiments_manager.common.machine.imports import imported_for_good

ROOT = Path(__file__).parents[2]
IMPORTED = ("tensorflow", "keras", "experiments_manager.cli.main", "experiments_manager.training.engine.runner")
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
_NUMBER = struct.Struct("q")
_MOST = 1 << 20
"""Bytes of a request at the most: words and environment."""
_turn = threading.Lock()


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
        streams = [end if end != -1 else number for number, end in enumerate((pipes[0], pipes[3], pipes[5]))]
        request = json.dumps([words[1:], folder, environment, bool(given["start_new_session"])]).encode()
        self._status, theirs = socket.socketpair()
        with theirs, _turn:
            socket.send_fds(_warm_process(), [request], [*streams, theirs.fileno()])
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
def _warm_process():
    """The process' one end; the warm process ends with the one that uses it, which closes it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", __spec__.name, str(theirs.fileno())]
    with theirs:
        _keep(subprocess.Popen(command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()]))
    return ours


_keep = [].append  # nobody waits for the warm process, and an object that goes would warn of that


def _serve(channel):
    """Fork a process for each request, tell its number and its end; return the request in the process forked."""
    events, running = selectors.DefaultSelector(), {}
    events.register(channel, selectors.EVENT_READ)
    while True:
        for key, _ in events.select():
            if key.fileobj is channel:
                text, streams, _, _ = socket.recv_fds(channel, _MOST, 4)
                if not text:
                    return None
                if not (pid := os.fork()):
                    return json.loads(text), streams
                [status] = streams[3:]
                os.write(status, _NUMBER.pack(pid))
                running[end := os.pidfd_open(pid)] = pid, status
                events.register(end, selectors.EVENT_READ)
                for stream in streams[:3]:
                    os.close(stream)
            else:
                events.unregister(key.fd)
                pid, status = running.pop(key.fd)
                os.write(status, _NUMBER.pack(os.waitpid(pid, 0)[1]))
                os.close(status)
                os.close(key.fd)


def _become(words, folder, environment, own_session, streams):
    """Make this process what `python words` in a folder would be, up to its first line."""
    for number, stream in enumerate(streams[:3]):
        os.dup2(stream, number)
    os.closerange(3, 1024)
    if own_session:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = folder
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = [words[0], *words[2:]]
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "wr"[not number]) for number in range(3))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def main(channel):
    """Run the warm process, and in the processes forked from it what they are for."""
    with imported_for_good():  # or each process forked looks for garbage among all of it, and copies its memory by that
        for name in IMPORTED:
            __import__(name)
        gc.collect()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    request = _serve(channel)
    channel.close()  # now, and not when Python ends: by then its number may be that of another file
    if request is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    told, streams = request
    _become(*told, streams)
    _run(*told[0][:2])


def _run(option, program):
    """Run a module, or code, as Python does for the option."""
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), module.__dict__)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
