"""The model server: versions, batching, gRPC and REST, put together in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.signals import exit_process, on_shutdown_signal
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.api.grpc_server import GrpcServer
from experiments_manager.serving.api.http import memory
from experiments_manager.serving.api.metrics import Admission, Metrics
from experiments_manager.serving.api.services import Handlers
from experiments_manager.serving.batching.scheduler import Scheduler
from experiments_manager.serving.models.manager import ModelManager
from experiments_manager.serving.models.signatures import Model
from experiments_manager.serving.models.threads import Threads, lower_priority
from experiments_manager.serving.server.options import ServerOptions

logger = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds after the grace time in which models may end the calls whose clients were given up."""
_SAVED_MODELS = ("saved_model.pb", "saved_model.pbtxt")


class Server:
    """One model server in the running event loop.

    Args:
        options: What it serves, and where.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self.metrics = Metrics()
        self.manager = ModelManager(
            options.models,
            make_loader(options),
            options=options.loading,
            label_rule=options.label_rule,
            warm_up=self._warm_up if options.warm_up else None,
            on_load=self._loaded,
        )
        self.scheduler = Scheduler(
            options.batching,
            on_batch=self.metrics.observe_batch,
            on_run=self.metrics.observe_runtime,
        )
        self.admission = Admission(
            self.manager.registry,
            self.metrics,
            max_in_flight=options.max_in_flight,
            max_bytes=options.max_bytes_in_flight,
        )
        self.handlers = Handlers(self.manager, self.scheduler, self.admission, tensor_content=options.tensor_content)
        self.grpc = GrpcServer(self.handlers, options.grpc) if options.grpc else None
        self.rest = options.rest(self.handlers) if options.rest else None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load the models, and listen when every one of them has a version that answers.

        Raises:
            ServerStartError: A port cannot be had, or every version of a model failed to load.
        """
        self.manager.start()
        ready = await self._loop.run_in_executor(None, self.manager.wait_until_ready)
        if not ready:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.manager.problems().items())
            raise ServerStartError(f"Some models did not become available: {{{reasons}}}")
        await self._assign_labels()
        if self.grpc is not None:
            await self.grpc.start()
            await self.grpc.set_serving(True)  # to its end, whatever becomes of a model: the others go on
        if self.rest is not None:
            await self.rest.start(self._options.grace_seconds)
        if self._options.read_configs and self._options.config_poll_seconds > 0:
            self._tasks.append(self._loop.create_task(self._poll_configs()))
        self._tasks.append(self._loop.create_task(self._tidy_memory()))

    async def stop(self) -> bool:
        """Let requests in flight finish and end everything.

        Returns:
            Whether all has ended. `False` where a version still runs a call, or is still being loaded, some seconds
            after the grace time; the log says which. It goes on then, in daemon threads.
        """
        deadline = self._loop.time() + self._options.grace_seconds + PATIENCE
        for task in self._tasks:
            task.cancel()
        listening = [self.grpc.stop(self._options.grace_seconds)] if self.grpc is not None else []
        listening += [self.rest.stop()] if self.rest is not None else []
        await asyncio.gather(*listening)
        closed = asyncio.Event()
        threading.Thread(target=self._close, args=(closed,), name="closing", daemon=True).start()
        try:
            await asyncio.wait_for(closed.wait(), deadline - self._loop.time())
        except asyncio.TimeoutError:
            self.log_unfinished()
            return False
        return True

    def _close(self, closed: asyncio.Event) -> None:
        try:
            self.manager.close()
            self.scheduler.close()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(closed.set)

    def log_unfinished(self) -> None:
        """Log what keeps the server from ending."""
        what = ", ".join(self.manager.unfinished()) or "a model still runs a call"
        logger.error("The server ends without waiting any longer: %s", what)

    async def _tidy_memory(self) -> None:
        """Free from time to time what large requests left behind."""
        trimmer = memory.MemoryTrimmer()
        while True:
            await asyncio.sleep(memory.LOOK_SECONDS)
            if trimmer.is_due(self._loop.time(), self.admission.freed):
                self.admission.freed = 0
                trimmer.collect()
                await self._loop.run_in_executor(None, trimmer.trim, self._loop.time())

    async def _assign_labels(self) -> None:
        if any(config.labels for config in self._options.models):
            try:
                await self._loop.run_in_executor(None, self.manager.reload, self._options.models)
            except ServingError as error:
                raise ServerStartError(error.message) from error

    async def _poll_configs(self) -> None:
        """Poll the configuration file, and put it in force when it changes."""
        current, logged = list(self._options.models), ""
        while True:
            await asyncio.sleep(self._options.config_poll_seconds)
            try:
                configs = list(await self._loop.run_in_executor(None, self._options.read_configs))
                if configs != current:
                    await self._loop.run_in_executor(None, self.manager.reload, configs)
                    current = configs  # not before: a label may be for a version that is still to come
                    logger.info("Put the new model configuration in force")
                logged = ""
            except (ServerStartError, ServingError, OSError) as error:
                if isinstance(error, ServingError) and error.code is Code.UNKNOWN:
                    problem = f"The new model configuration is in force, but not all of it answers: {error}"
                    if not any(config.labels for config in configs):  # those are assigned when their versions answer
                        current = configs
                else:
                    problem = f"The model configuration was not taken over: {error}"
                if problem != logged:
                    logger.error("%s", problem)
                logged = problem

    def _warm_up(self, model: Model, path: Path) -> None:
        from experiments_manager.serving.models.warmup import warm_up

        started = time.perf_counter()
        warm_up(model, path)
        self.metrics.observe_warm_up(str(path), time.perf_counter() - started)

    def _loaded(self, path: Path, seconds: float, worked: bool) -> None:
        self.metrics.observe_load(str(path), "success" if worked else "fail", seconds)


def make_loader(options: ServerOptions) -> Callable[[Path], Model]:
    """Make the function that loads a version, in a thread at low priority, by TensorFlow or LiteRT."""
    threads: Threads | None = None

    def load(path: Path) -> Model:
        nonlocal threads
        lite = path / "model.tflite"
        if lite.exists() and (options.prefer_tflite or not any((path / name).exists() for name in _SAVED_MODELS)):
            from experiments_manager.serving.models.lite import LiteModel

            return LiteModel.load(path)
        from experiments_manager.serving.models.saved_model import LoadedModel

        if threads is None:  # the first version, for which the server waits
            base_paths = [path.parent, *(config.base_path for config in options.models)]  # a reload may bring others
            threads = options.threads or Threads.for_models(base_paths)
        else:
            lower_priority()
        return LoadedModel.load(path, threads=threads)

    return load


def run_server(
    options: ServerOptions,
    *,
    on_ready: Callable[[Server], None] = lambda server: None,
    on_waiting: Callable[[dict[str, str]], None] = lambda problems: None,
) -> None:
    """Run a server until SIGINT or SIGTERM, then let requests in flight finish.

    Where a model call goes on after the grace time and some seconds, it ends the process all the same.

    Args:
        options: What it serves, and where.
        on_ready: Called when it listens.
        on_waiting: Called with the reasons, by model, if models are not there after a second.

    Raises:
        ServerStartError: It cannot be started.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    memory.allow_many_files()
    returned = threading.Event()
    try:
        from uvloop import run as run_loop  # it answers a tenth to a fifth more requests
    except ImportError:
        run_loop = asyncio.run
    try:
        run_loop(_run(options, on_ready, on_waiting, returned))
    finally:
        returned.set()


async def _run(
    options: ServerOptions,
    on_ready: Callable[[Server], None],
    on_waiting: Callable[[dict[str, str]], None],
    returned: threading.Event,
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    server = Server(options)

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(stopping.set)
        if not returned.wait(options.grace_seconds + PATIENCE + 1):  # the loop itself may be inside a model call
            server.log_unfinished()
            exit_process(ExitCode.DONE)

    with on_shutdown_signal(stop):
        starting, stopped = asyncio.ensure_future(server.start()), asyncio.ensure_future(stopping.wait())
        try:
            done, _ = await asyncio.wait({starting, stopped}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                on_waiting(server.manager.problems())
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                _settle_interpreter()
                if not stopping.is_set():
                    on_ready(server)
                await stopped
        finally:
            for task in (starting, stopped):
                task.cancel()
            if not await server.stop():
                problem = sys.exc_info()[1]
                if problem is not None:  # the process ends before the caller can log it
                    logger.error("Failed to start server. %s", problem)
                exit_process(ExitCode.DONE if problem is None else ExitCode.BAD_INPUT)


def _settle_interpreter() -> None:
    """Keep halts of the interpreter short, which requests would feel."""
    # The many objects of TensorFlow's modules live for ever: no need to look at them at each collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # A thread that loads a version gives way to the event loop after this time; 5 ms is the default.
    sys.setswitchinterval(0.0005)
