"""The client of a model server, whichever it is: TensorFlow Serving's or ours.

    from experiments_manager import Client

    with Client("localhost:9000", model="model_cnn") as client:
        outputs = client.predict({"image": images})          # {"digit": array}, and outputs.version
        for request, outputs in client.stream(requests()):   # 16 requests in flight, answers in order
            ...

It needs `grpcio`, `protobuf` and `numpy`, and nothing else; in particular no TensorFlow.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.client import server_channel
from experiments_manager.client.credentials import ClientTls, checked_token, read_client_tls, read_token
from experiments_manager.client.errors import ClientError
from experiments_manager.client.model_info import ModelInfo, fitted, listed, named, tensor_info
from experiments_manager.client.server_channel import STATUS, Connection, PendingCall
from experiments_manager.protocol import messages, tensors
from experiments_manager.protocol.status import Code

DEFAULT_ADDRESS = "localhost:9000"
MAX_MESSAGE_BYTES = 512 * 2**20
IN_FLIGHT = 16

Inputs = Mapping[str, Any]


class Prediction(dict[str, np.ndarray]):
    """The answer to a request: arrays by the names of the model's outputs; strings are `bytes` in arrays of `object`.

    Attributes:
        version: The version of the model that answered.
        seconds: Time from sending the request to having its answer.
        message: The `PredictResponse` that this was read from, serialised, where the client keeps messages.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], version: int, seconds: float, message: bytes) -> None:
        super().__init__(arrays)
        self.version, self.seconds, self.message = version, seconds, message


class Client:
    """A client of a model server.

    One client may be used by several threads. It connects when it is first used, and waits for a server that is not
    there yet.

    Args:
        address: `host:port` of the server's gRPC service.
        model: Name of the model.
        version: The version to ask, or a version's label such as `"stable"`; the newest by default.
        signature: The signature to call.
        timeout: Seconds that the server may take for one answer.
        patience: Seconds that the server may be out of reach, or full, before that is an error. Meanwhile requests
            are sent again.
        max_message_bytes: Largest message, in bytes, either way.
        tls: `True`, a file that `credentials.read_client_tls` reads, or its result: talk TLS.
        token: Bearer token, the text itself; white space around it counts for nothing.
        token_file: File whose first line is the bearer token.
        keep_messages: Whether each answer keeps the message that it came in.

    Attributes:
        first_timeout: Seconds that the server may take for the first prediction, for which it may still have to set up
            the model; `None`: as for all others.

    Raises:
        ClientError: A file cannot be read, or holds nothing of the kind; or the token, a name, the version, the address
            or a time is invalid.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        model: str = "model",
        *,
        version: int | str | None = None,
        signature: str = "serving_default",
        timeout: float = 10.0,
        patience: float = 60.0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tls: bool | ClientTls | Path | str = False,
        token: str | None = None,
        token_file: Path | str | None = None,
        keep_messages: bool = False,
    ) -> None:
        _check_asked(model, version, signature)
        self.model, self.version, self.signature = model, version, signature
        self.keep_messages = keep_messages
        self.first_timeout: float | None = None
        self._connection = Connection(
            address,
            timeout=timeout,
            patience=patience,
            max_message_bytes=max_message_bytes,
            tls=_tls(tls),
            token=_token(token, token_file),
        )
        self._info: ModelInfo | None = None
        self._lock = threading.Lock()

    @classmethod
    def for_run(cls, run: Path | str, **options: Any) -> Client:
        """Make the client of a run's model, at the address that its `model_serving_setup.ini` names.

        Args:
            run: The run folder.
            **options: As for `Client`; they count for more than what the run says.

        Raises:
            ServerStartError: The folder is not found, or holds nothing that could be served.
            RunError: It is a run folder, but a damaged one.
        """
        from experiments_manager.client.endpoint import find_endpoint

        return cls(**(find_endpoint(run).client_options() | options))

    @property
    def address(self) -> str:
        """`host:port` of the model server."""
        return self._connection.address

    @property
    def timeout(self) -> float:
        """Seconds that the server may take for one answer."""
        return self._connection.timeout

    @property
    def retries(self) -> int:
        """How many requests were sent again so far."""
        return self._connection.retries

    def predict(self, inputs: Inputs | Any, *, outputs: Sequence[str] = ()) -> Prediction:
        """Ask for one prediction, of a batch as large as you like.

        Args:
            inputs: Arrays by input name, with the batch as first dimension where the model has one; an array alone
                will do for a model with one input. Numbers are converted to the input's type where that keeps their
                kind.
            outputs: Names of the outputs that are wanted; all by default.

        Returns:
            The outputs.

        Raises:
            ClientError: The model has no such input, or the server refuses, takes too long or stays out of reach.
        """
        return self.receive(self.send(inputs, outputs=outputs))

    def stream(
        self, requests: Iterable[Inputs | Any], *, in_flight: int = IN_FLIGHT, rate: float | None = None
    ) -> Iterator[tuple[Any, Prediction]]:
        """Ask for many predictions, several at a time, and return the answers in the order of the requests.

        A server that is restarted meanwhile costs time, but no request and no answer: each comes once.

        Args:
            requests: What `predict` takes, one after the other; may go on for ever. With more than one request in
                flight it is read in a thread of its own, ahead of the answers; with one, the next is read when the
                last answer was handled.
            in_flight: How many requests may be without an answer at a time, at most.
            rate: How many requests a second may be sent, at most.

        Yields:
            Each request with its outputs.

        Raises:
            ClientError: As for `predict`.
        """
        from experiments_manager.client.stream import stream

        return stream(self, requests, in_flight=in_flight, rate=rate)

    def info(self, *, refresh: bool = False) -> ModelInfo:
        """Ask for the model's inputs and outputs; the answer is kept.

        Args:
            refresh: Whether to ask again.

        Raises:
            ClientError: The server has no such model or signature, or stays out of reach.
        """
        with self._lock:
            if self._info is None or refresh:
                self._info = self._ask_info()
            return self._info

    def close(self) -> None:
        """Close the channel to the model server."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, inputs: Inputs | Any, *, outputs: Sequence[str] = ()) -> PendingCall:
        """Send a request as `predict` does, without waiting; `receive` takes what this gives."""
        request = messages.raw.PredictRequest()
        self._fill_spec(request.model_spec)
        request.model_spec.signature_name = self.signature
        info = self.info()
        for name, value in named(inputs, info).items():
            try:
                tensors.to_proto(fitted(name, value, info), request.inputs[name])
            except tensors.TensorError as error:
                raise ClientError(f"Input {name}: {error}") from error
        request.output_filter.extend(outputs)
        timeout, self.first_timeout = self.first_timeout, None
        return self._connection.send(server_channel.PREDICT, request.SerializeToString(), timeout)

    def receive(self, sent: PendingCall, others: Callable[[], Sequence[PendingCall]] = tuple) -> Prediction:
        """Wait for the answer to a request.

        Args:
            sent: What `send` gave.
            others: Gives further requests that are on their way, to be sent again with this one if the server is lost.

        Raises:
            ClientError: As for `predict`.
        """
        try:
            message = self._connection.answer(sent, others)
        except ClientError as error:
            raise self._explained(error) from error.__cause__
        response = messages.raw.PredictResponse.FromString(message)
        try:
            arrays = {name: tensors.to_array(tensor, copy=True) for name, tensor in sorted(response.outputs.items())}
        except tensors.TensorError as error:
            raise ClientError(f"The answer of the model server at {self.address} cannot be read: {error}") from error
        version = response.model_spec.version.value
        return Prediction(arrays, version, sent.seconds, message if self.keep_messages else b"")

    def _explained(self, error: ClientError) -> ClientError:
        """Say what there is and what the model expects now where the server refused: versions come and go."""
        if is_not_found(error):
            return with_versions(error, self._connection, self.model)
        if error.code != Code.INVALID_ARGUMENT:
            return error
        info = self.info(refresh=True)
        return ClientError(
            f"{str(error).rstrip('.')}. Inputs of version {info.version}: {listed(info.inputs)}.", error.code
        )

    def _ask_info(self) -> ModelInfo:
        request = messages.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._fill_spec(request.model_spec)
        try:
            response = self._connection.call(server_channel.METADATA, request, messages.GetModelMetadataResponse)
        except ClientError as error:
            if is_not_found(error):
                raise with_versions(error, self._connection, self.model) from error.__cause__
            raise
        signatures = messages.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        if self.signature not in signatures.signature_def:
            known = sorted(name for name in signatures.signature_def if not name.startswith("__saved_model_"))
            raise ClientError(
                f"The model {self.model!r} at {self.address} has no signature {self.signature!r}. "
                f"Expected one of {', '.join(known)}."
            )
        signature = signatures.signature_def[self.signature]
        try:
            return ModelInfo(
                self.model,
                response.model_spec.version.value,
                {name: tensor_info(signature.inputs[name]) for name in sorted(signature.inputs)},
                {name: tensor_info(signature.outputs[name]) for name in sorted(signature.outputs)},
                frozenset(signature.defaults),
            )
        except tensors.TensorError as error:
            raise ClientError(f"The model {self.model!r} at {self.address} cannot be asked: {error}") from error

    def _fill_spec(self, spec: Any) -> None:
        spec.name = self.model
        if isinstance(self.version, int):
            spec.version.value = self.version
        elif self.version is not None:
            spec.version_label = self.version


def _check_asked(model: str, version: int | str | None, signature: str) -> None:
    """Refuse what no request can hold, and an empty label, which would ask for the newest version."""
    if (isinstance(version, int) and not 0 <= version < 2**63) or version == "":
        raise ClientError(
            f"invalid version of a model: {version!r}. Expected a number from 0 to 2**63 - 1, or a label."
        )
    names = {"model": model, "label": version if isinstance(version, str) else "", "signature": signature}
    for what, name in names.items():
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise ClientError(f"invalid name of a {what}: {name!r}. Expected text in UTF-8.")


def _tls(given: bool | ClientTls | Path | str) -> ClientTls | None:
    if isinstance(given, bool):
        return ClientTls() if given else None
    return given if isinstance(given, ClientTls) else read_client_tls(given)


def _token(token: str | None, file: Path | str | None) -> str | None:
    if file is not None:
        return read_token(file)
    return None if token is None else checked_token(token)


_LONGEST_LIST = 20
_LABEL = "version label"  # TensorFlow Serving: "Unrecognized servable version label: …"


def is_not_found(error: ClientError) -> bool:
    """Return whether the server has no such model, version or label."""
    return error.code == Code.NOT_FOUND or _is_about_label(error)


def with_versions(error: ClientError, connection: Connection, model: str) -> ClientError:
    """Add to an error which versions there are; for that, the server is asked once more.

    Args:
        error: One of which `is_not_found` is true.
        connection: To the server.
        model: Name of the model.
    """
    request = messages.GetModelStatusRequest()
    request.model_spec.name = model
    answer = connection.call_once(STATUS, request, messages.GetModelStatusResponse)
    if answer is None:  # it has no such model, or is gone
        advice = "Expected the name of a model that it serves (--model-name, `model`) and a version of it."
    else:
        advice = _versions_text(answer.model_version_status)
        if _is_about_label(error):
            advice = f"The model has no such label. {advice}"
    return ClientError(f"{str(error).rstrip('.')}. {advice}", error.code)


def _is_about_label(error: ClientError) -> bool:
    return error.code == Code.INVALID_ARGUMENT and _LABEL in str(error)


def _versions_text(statuses: Any) -> str:
    ordered = sorted(statuses, key=lambda status: status.version)
    there = [str(status.version) for status in ordered if status.state == messages.ModelVersionStatus.AVAILABLE]
    if there:
        more = "…, " if len(there) > _LONGEST_LIST else ""
        return f"Versions that answer: {more}{', '.join(there[-_LONGEST_LIST:])}."
    states = [f"{one.version} is {messages.ModelVersionStatus.State.Name(one.state)}" for one in ordered]
    return f"No version of the model answers now: {', '.join(states[-_LONGEST_LIST:])}."
