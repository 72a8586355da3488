"""The services, whatever carries the requests: what gRPC and REST both call.

Every method takes a message of `messages` and gives one, or raises a `ServingError` with TensorFlow Serving's code and
the key parts of its wording. All predictions end in `Scheduler.predict`; those of `Predict` itself come straight from
`grpc_server` and `rest_server`, which read arrays from bytes or JSON.
"""

from __future__ import annotations

from typing import Any

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code, invalid_argument
from experiments_manager.serving.api.metrics import Admission, Metrics
from experiments_manager.serving.batching.scheduler import Scheduler
from experiments_manager.serving.models import example_signatures
from experiments_manager.serving.models.manager import ModelManager
from experiments_manager.serving.models.registry import Lease
from experiments_manager.serving.models.signatures import ModelRef, PredictRequest, Signature
from experiments_manager.serving.models.version_policy import configs_from_proto


class Handlers:
    """The services of one server.

    Args:
        manager: Has the models.
        scheduler: Runs them.
        admission: Counts requests; without, there may be any number.
        tensor_content: Whether replies to Predict hold numbers in `tensor_content`, and not in the field of their type.
    """

    def __init__(
        self,
        manager: ModelManager,
        scheduler: Scheduler,
        admission: Admission | None = None,
        *,
        tensor_content: bool = False,
    ) -> None:
        self.manager, self.scheduler, self.tensor_content = manager, scheduler, tensor_content
        self.admission = admission or Admission(manager.registry, Metrics())

    async def classify(self, request: Any) -> Any:
        """Answer a `ClassificationRequest`."""
        response = messages.ClassificationResponse()
        with self._lease(request) as lease:
            signature = example_signatures.find(lease.model, request.model_spec, example_signatures.CLASSIFICATION)
            await self._fill(response, lease, signature, example_signatures.CLASSIFICATION, request.input)
        return response

    async def regress(self, request: Any) -> Any:
        """Answer a `RegressionRequest`."""
        response = messages.RegressionResponse()
        with self._lease(request) as lease:
            signature = example_signatures.find(lease.model, request.model_spec, example_signatures.REGRESSION)
            await self._fill(response, lease, signature, example_signatures.REGRESSION, request.input)
        return response

    async def multi_inference(self, request: Any) -> Any:
        """Answer a `MultiInferenceRequest`: several classifications and regressions of the same examples."""
        response = messages.MultiInferenceResponse()
        ref = ModelRef.from_proto(request.tasks[0].model_spec) if request.tasks else ModelRef("")
        with self.manager.lease(ref) as lease:
            for signature, task in example_signatures.check_tasks(lease.model, request.tasks):
                await self._fill(response.results.add(), lease, signature, task, request.input)
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
            ModelRef(lease.name, lease.version).fill(response.model_spec)
        response.metadata["signature_def"].Pack(signatures)
        return response

    async def get_model_status(self, request: Any) -> Any:
        """Answer a `GetModelStatusRequest`."""
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        response = messages.GetModelStatusResponse()
        for status in self.manager.statuses(ModelRef.from_proto(request.model_spec)):
            entry = response.model_version_status.add(version=status.version, state=int(status.state))
            entry.status.error_code = int(status.code)
            entry.status.error_message = status.message
        return response

    async def reload_config(self, request: Any) -> Any:
        """Answer a `ReloadConfigRequest`: put another list of models in force, and wait for those that are new."""
        if request.config.WhichOneof("config") is None:
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        configs = configs_from_proto(request.config)
        await self.scheduler.in_thread(self.manager.reload, configs)
        response = messages.ReloadConfigResponse()
        response.status.error_code = int(Code.OK)
        return response

    def _lease(self, request: Any) -> Lease:
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        return self.manager.lease(ModelRef.from_proto(request.model_spec))

    async def _fill(
        self, response: Any, lease: Lease, signature: Signature, task: example_signatures.ExampleTask, given: Any
    ) -> None:
        """Run a signature on examples, and write the answer."""
        serialized = example_signatures.serialize(given)
        turn = await self.scheduler.turn(self.admission.in_flight <= 1)
        request = PredictRequest(signature, {"inputs": serialized}, task.outputs_of(signature))
        outputs = await self.scheduler.predict(lease, request, turn)
        ModelRef(lease.name, lease.version, signature=signature.name).fill(response.model_spec)
        result = response.result if hasattr(response, "result") else getattr(response, f"{task.word}_result")
        task.fill(result, outputs, len(serialized))
