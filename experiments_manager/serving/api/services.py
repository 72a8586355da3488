"""The services, whatever carries the requests: what gRPC and REST both call.

Every method takes a message of `messages` and gives one, or raises a `ServingError` with TensorFlow Serving's code and
the key parts of its wording. `predict` runs a signature on arrays; Predict by gRPC, from bytes to bytes, is in
`predict_call`. Both run what `call_for` makes of a request and the version that was borrowed for all of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.batching.scheduler import Call, Scheduler
from experiments_manager.serving.models import examples
from experiments_manager.serving.models.manager import Lease, ModelManager
from experiments_manager.serving.models.signatures import Arrays, Signature
from experiments_manager.serving.models.version_policy import configs_from_proto

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ModelRef:
    """What a request asks for.

    Attributes:
        name: Name of the model.
        version: Its version, or `None`.
        label: Label of a version, or `None`.
        signature: Key of the signature, empty for the default.
    """

    name: str
    version: int | None = None
    label: str | None = None
    signature: str = ""

    @classmethod
    def from_proto(cls, spec: Any) -> ModelRef:
        """Read a `ModelSpec`."""
        choice = spec.WhichOneof("version_choice")
        return cls(
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
            spec.signature_name,
        )


@dataclasses.dataclass(frozen=True)
class Inference:
    """Outputs, and who computed them.

    Attributes:
        outputs: Arrays by the names of the signature's outputs.
        model: Name of the model.
        version: Its version.
        signature: The signature that answered.
    """

    outputs: Arrays
    model: str
    version: int
    signature: Signature


class Handlers:
    """The services of one server.

    Args:
        manager: Has the models.
        scheduler: Runs them.
        max_in_flight: Requests that are answered at the same time, 0 for any number; beyond, RESOURCE_EXHAUSTED.
        tensor_content: Whether replies to Predict hold numbers in `tensor_content`, and not in the field of their type.
        on_reload: Called after a reload request was carried out.
    """

    def __init__(
        self,
        manager: ModelManager,
        scheduler: Scheduler,
        *,
        max_in_flight: int = 0,
        tensor_content: bool = False,
        on_reload: Callable[[], None] | None = None,
    ) -> None:
        self.manager, self.scheduler, self.tensor_content = manager, scheduler, tensor_content
        self._max_in_flight, self._on_reload = max_in_flight, on_reload
        self.in_flight = 0

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request in for as long as it is being answered.

        Raises:
            ServingError: RESOURCE_EXHAUSTED where as many as may be are being answered.
        """
        self.admit()
        try:
            yield
        finally:
            self.in_flight -= 1

    def admit(self) -> None:
        """Count a request in; the caller counts it out with `handlers.in_flight -= 1`."""
        if self._max_in_flight and self.in_flight >= self._max_in_flight:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"{self.in_flight} requests are being answered, which is as many as this server takes at "
                "once. Try again later.",
            )
        self.in_flight += 1

    def borrow(self, ref: ModelRef) -> Lease:
        """Borrow the version that a request asks for; a context manager, for as long as anything is done for it.

        Raises:
            ServingError: As for `ModelManager.get`.
        """
        return self.manager.get(ref.name, ref.version, ref.label)

    async def predict(self, lease: Lease, signature: Signature, inputs: Arrays) -> Inference:
        """Run a signature of any kind on arrays.

        Args:
            lease: The version that was borrowed for the request.
            signature: One of its signatures.
            inputs: Arrays by input name; strings as `bytes` in arrays of dtype `object`.

        Raises:
            ServingError: As TensorFlow Serving answers.
        """
        return await self._run(lease, signature, call_for(lease, signature, inputs))

    async def classify(self, request: Any) -> Any:
        """Answer a `ClassificationRequest`."""
        with self._lease(request) as lease:
            kind = examples.CLASSIFICATION
            signature = examples.find(lease.model, request.model_spec, kind)
            done, count = await self._run_on_examples(lease, signature, kind, request.input)
        response = messages.ClassificationResponse()
        _fill_spec(response.model_spec, done)
        examples.fill_classifications(response.result, done.outputs, count)
        return response

    async def regress(self, request: Any) -> Any:
        """Answer a `RegressionRequest`."""
        with self._lease(request) as lease:
            kind = examples.REGRESSION
            signature = examples.find(lease.model, request.model_spec, kind)
            done, count = await self._run_on_examples(lease, signature, kind, request.input)
        response = messages.RegressionResponse()
        _fill_spec(response.model_spec, done)
        examples.fill_regressions(response.result, done.outputs, count)
        return response

    async def multi_inference(self, request: Any) -> Any:
        """Answer a `MultiInferenceRequest`: several classifications and regressions of the same examples."""
        ref = ModelRef.from_proto(request.tasks[0].model_spec) if request.tasks else ModelRef("")
        response = messages.MultiInferenceResponse()
        with self.borrow(ref) as lease:
            for signature, kind in examples.check_tasks(lease.model, request.tasks):
                done, count = await self._run_on_examples(lease, signature, kind, request.input)
                result = response.results.add()
                _fill_spec(result.model_spec, done)
                if kind is examples.CLASSIFICATION:
                    examples.fill_classifications(result.classification_result, done.outputs, count)
                else:
                    examples.fill_regressions(result.regression_result, done.outputs, count)
        return response

    async def get_model_metadata(self, request: Any) -> Any:
        """Answer a `GetModelMetadataRequest` for `signature_def`, the one field that there is."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid_argument(f"Metadata field {field} is not supported")
        response = messages.GetModelMetadataResponse()
        signatures = messages.SignatureDefMap()
        with self._lease(request) as lease:
            for name, definition in lease.model.definitions.items():
                signatures.signature_def[name].MergeFromString(definition)
            response.model_spec.name = lease.name
            response.model_spec.version.value = lease.version
        response.metadata["signature_def"].Pack(signatures)
        return response

    async def get_model_status(self, request: Any) -> Any:
        """Answer a `GetModelStatusRequest`."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        ref = ModelRef.from_proto(request.model_spec)
        response = messages.GetModelStatusResponse()
        for status in self.manager.statuses(ref.name, ref.version, ref.label):
            entry = response.model_version_status.add(version=status.version, state=int(status.state))
            entry.status.error_code = int(status.code)
            entry.status.error_message = status.message
        return response

    async def reload_config(self, request: Any) -> Any:
        """Answer a `ReloadConfigRequest`: puts another list of models in force, and wait for those that are new."""
        if request.config.WhichOneof("config") is None:
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        configs = configs_from_proto(request.config)
        await self.scheduler.in_thread(self.manager.reload, configs)
        if self._on_reload is not None:
            self._on_reload()
        response = messages.ReloadConfigResponse()
        response.status.error_code = int(Code.OK)
        return response

    def _lease(self, request: Any) -> Lease:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        return self.borrow(ModelRef.from_proto(request.model_spec))

    async def _run(self, lease: Lease, signature: Signature, call: Call) -> Inference:
        found = await self.scheduler.run(lambda: call, alone=self.in_flight <= 1)
        return Inference(found, lease.name, lease.version, signature)

    async def _run_on_examples(
        self, lease: Lease, signature: Signature, kind: examples.ExampleTask, given: Any
    ) -> tuple[Inference, int]:
        serialized = examples.serialize(given)
        call = call_for(lease, signature, {"inputs": serialized}, kind.outputs_of(signature))
        done = await self._run(lease, signature, call)
        return done, len(serialized)


def call_for(lease: Lease, signature: Signature, inputs: Arrays, output_filter: Sequence[str] = ()) -> Call:
    """Check a request against a signature of the version that it borrowed, and return what is to be run.

    Args:
        lease: The version.
        signature: One of its signatures.
        inputs: Arrays by input name; strings as `bytes` in arrays of dtype `object`.
        output_filter: Names of the outputs that are wanted, empty for all.

    Raises:
        ServingError: INVALID_ARGUMENT, as TensorFlow Serving answers.
    """
    outputs = signature.select_outputs(output_filter)
    return Call(lease.name, lease.model, signature, signature.check_inputs(inputs), outputs)


def _fill_spec(spec: Any, done: Inference) -> None:
    spec.name = done.model
    spec.version.value = done.version
    spec.signature_name = done.signature.name
