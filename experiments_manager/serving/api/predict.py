"""One Predict request on its way: from the bytes that came in to the bytes that go out.

Reading it and writing its answer are two plain functions without a wait in them, so that the scheduler can read many
requests in a row, and write many answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from experiments_manager.protocol import tensors, wire
from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.api.services import Handlers, ModelRef, call_for
from experiments_manager.serving.batching.batch import Call, Outputs
from experiments_manager.serving.models.signatures import Signature, find_signature

if TYPE_CHECKING:
    from experiments_manager.serving.models.manager import Lease


class PredictCall:
    """A serialised `PredictRequest` that becomes a serialised `PredictResponse`.

    Args:
        handlers: The services of the server.
        data: The request.

    Attributes:
        asked: Name of the model that the request asks for; empty until it was read.
    """

    __slots__ = ("_data", "_handlers", "_lease", "_signature", "asked")

    def __init__(self, handlers: Handlers, data: bytes) -> None:
        self._handlers, self._data = handlers, data
        self._lease: Lease | None = None
        self._signature: Signature | None = None
        self.asked = ""

    async def answer(self) -> bytes:
        """Return the response.

        Raises:
            ServingError: As TensorFlow Serving answers.
        """
        try:
            return await self._handlers.scheduler.run(self._read, self._write, alone=self._handlers.in_flight <= 1)
        finally:
            if self._lease is not None:
                self._lease.give_back()

    def _read(self) -> Call:
        try:
            request, large = wire.read_predict_request(self._data)
        except DecodeError as error:
            raise invalid_argument(f"The request is no valid message for Predict: {error}") from error
        if not request.HasField("model_spec"):
            raise invalid_argument("Missing ModelSpec")
        spec = request.model_spec
        self.asked = spec.name
        lease = self._lease = self._handlers.borrow(ModelRef.from_proto(spec))
        signature = self._signature = find_signature(lease.model, spec.signature_name)
        signature.check_names(request.inputs)
        inputs = {
            name: large[name] if name in large else _to_array(name, tensor) for name, tensor in request.inputs.items()
        }
        return call_for(lease, signature, inputs, request.output_filter)

    def _write(self, outputs: Outputs) -> bytes:
        spec = tensors.answering_spec(self._lease.name, self._lease.version, self._signature.name)
        try:
            return tensors.write_predict_response(spec, outputs, content=self._handlers.tensor_content)
        except tensors.TensorError as error:
            raise ServingError(Code.INTERNAL, f"the outputs cannot be sent: {error}") from error


def _to_array(name: str, tensor: Any) -> np.ndarray:
    try:
        return tensors.to_array(tensor)
    except tensors.TensorError as error:
        raise invalid_argument(f"tensor parsing error: {name}: {error}") from error
