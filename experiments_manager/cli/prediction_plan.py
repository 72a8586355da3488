"""What the command `predict` asks, and what becomes of the answers."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.client.topic_options import TopicOptions, topic_of
from experiments_manager.common.errors import CommandLineError

if TYPE_CHECKING:
    from experiments_manager.client.client import Client, Prediction
    from experiments_manager.client.endpoint import Endpoint
    from experiments_manager.client.stream import OnRefused
    from experiments_manager.client.stream_progress import Summary
    from experiments_manager.client.topic_answering import AnsweredTopic
    from experiments_manager.settings import Settings


class PredictionPlan(contextlib.ExitStack):
    """Where requests come from and where answers go, from the beginning of the `with` block to its end.

    With `writes=False` answers go nowhere but to who asks.
    """

    def __init__(
        self,
        client: Client,
        endpoint: Endpoint,
        output: str | None,
        topics: TopicOptions | None,
        *,
        debug: bool,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self.client, self._endpoint, self._debug, self._topics = client, endpoint, debug, topics
        self._started_in = Path.cwd()
        is_file = output not in (None, "-") and topic_of(output) is None
        self._output = str(self._started_in / output) if is_file else output
        self._writes = writes
        self.in_flight = 16
        self.files: list[str] = []
        self.requests: Iterator[Any] = iter(())
        self.on_refused: OnRefused | None = None
        self.topic: AnsweredTopic | None = None
        self._handlers: list[Any] = []
        self.enter_context(client)

    def prepare(self, source: str | None, scale: float | None) -> None:
        """Find the requests: from a source, else from the settings' client, else from the validation data."""
        if topic := topic_of(source):
            self._use_topic(topic)
            return
        if source is not None:
            from experiments_manager.client.inputs.sources import open_source

            self.requests = open_source(source, self.client.info(), scale=scale)
            self._write_outputs()
            return
        settings = self._settings()
        if settings.has("client"):
            self._use_client_hook(settings)
        else:
            self._use_validation_data(settings)

    def predict(self, *, count: int | None, in_flight: int | None, rate: float | None, quiet: bool) -> Summary:
        """Send the requests and hand over the answers, until there are no more; see `predict_all`."""
        from experiments_manager.client.prediction_stream import predict_all
        from experiments_manager.client.stream_progress import terminal_line

        return predict_all(
            self.client,
            self.requests,
            self.on_answer,
            count=None if self.topic else count,  # of a topic, records are counted and not requests
            in_flight=in_flight or self.in_flight,
            rate=rate,
            make_line=lambda: terminal_line(quiet=quiet),
            on_refused=self.on_refused,
        )

    @property
    def places(self) -> list[str]:
        """Where the answers are, for the user."""
        return self.files + (self.topic.places if self.topic else [])

    @property
    def counts(self) -> dict[str, int]:
        """What is to be counted besides answers."""
        return {"dead": self.topic.dead} if self.topic else {}

    def on_answer(self, request: Any, outputs: Prediction) -> None:
        """Hand an answer to the files and to the user's client."""
        for handler in self._handlers:
            handler(request, outputs)

    def _settings(self) -> Settings:
        if not self._endpoint.has_settings:
            raise CommandLineError(
                "Nothing to send. Expected --from PATH, or a run whose settings have a `client` or validation data."
            )
        from experiments_manager.cli.training_session import start_engine
        from experiments_manager.runs import open_run
        from experiments_manager.runs.run_settings import load_run_settings
        from experiments_manager.settings import load_settings

        start_engine(debug=self._debug)
        if file := self._endpoint.foreign_settings:
            return load_settings(file, model_file_search=self._endpoint.path)
        return load_run_settings(open_run(self._endpoint.path))

    def _enter_folder(self, settings: Settings) -> None:
        """Give a client whose hooks have a folder of their own one, too, so that it overwrites nothing."""
        if settings.dialect.session_folder is None:
            return
        from experiments_manager.client.outputs.writer import make_output_folder
        from experiments_manager.settings.hook_directory import working_directory

        folder = make_output_folder(self._default_folder())
        self.callback(self._leave_folder, folder)
        self.enter_context(working_directory(settings, folder))

    def _leave_folder(self, folder: Path) -> None:
        """Note the folder if there is something in it, else remove it."""
        try:
            folder.rmdir()
        except OSError:
            self.files.append(str(folder))

    def _use_topic(self, topic: str) -> None:
        from experiments_manager.client.topic_answering import AnsweredTopic

        answered = AnsweredTopic(self.client, topic, self._output, self._topics)
        self.callback(answered.close)
        self.topic, self.files = answered, answered.files
        self.requests, self.on_refused = answered.requests, answered.on_refused
        self._handlers.append(answered.on_answer)

    def _use_client_hook(self, settings: Settings) -> None:
        from experiments_manager.client.client_hook import make_client_hook

        started_with = {"run": str(self._endpoint.path), "address": self.client.address, "model": self.client.model}
        self._enter_folder(settings)
        hook = make_client_hook(settings, started_with, debug=self._debug)
        self.push(lambda kind, *_: hook.close() if kind is None or hook.closes_after_failure else None)
        self.requests, self.in_flight = hook.requests, hook.in_flight
        if hook.reads_messages:
            self.client.keep_messages = True
        self.client.first_timeout = hook.first_timeout * self.client.timeout
        if self._output is not None:
            self._write_outputs()
        self._handlers.append(hook.on_response)

    def _use_validation_data(self, settings: Settings) -> None:
        inputs = list(self.client.info().inputs)

        from experiments_manager.settings.hook_directory import session_folder, working_directory
        from experiments_manager.training.setup.samples import split_samples

        # The folder of a run of another framework is itself what the functions of its file ran in.
        folder = (
            self._endpoint.path if self._endpoint.foreign_settings else session_folder(settings, self._endpoint.path)
        )
        self.enter_context(working_directory(settings, folder))
        self.requests = split_samples(settings, inputs)
        self._write_outputs()

    def _write_outputs(self) -> None:
        if not self._writes:
            return
        from experiments_manager.client.outputs.writer import PredictionWriter

        writer: Any
        if topic := topic_of(self._output):
            from experiments_manager.client.topic_answering import topic_writer

            writer = topic_writer(self.client, topic, self._topics)
        else:
            writer = PredictionWriter.for_output(self._output, self._default_folder(), self._endpoint.class_names)
            self.files += writer.files
        self.callback(writer.close)
        numbers = iter(range(1 << 62))

        def write(request: Any, outputs: Prediction) -> None:
            number = next(numbers)
            writer.write(getattr(request, "label", str(number)), outputs.version, outputs)

        self._handlers.append(write)

    def _default_folder(self) -> Path:
        time = datetime.datetime.now().strftime("%Y-%m-%d--%H-%M-%S")
        return (self._endpoint.path if self._endpoint.has_settings else self._started_in) / f"predictions_{time}"
