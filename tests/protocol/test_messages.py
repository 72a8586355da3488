"""The message classes that need neither TensorFlow nor tensorflow_serving."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments_manager.protocol import messages

REPOSITORY = Path(__file__).parents[2]


def test_messages_are_built_without_tensorflow() -> None:
    program = (
        "import sys\n"
        "from experiments_manager.protocol import messages\n"
        "messages.PredictRequest(), messages.raw.PredictResponse()\n"
        "heavy = {'tensorflow', 'tensorflow_serving', 'keras', 'numpy', 'grpc'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [
        "PredictRequest PredictResponse ClassificationRequest ClassificationResponse",
        "RegressionRequest RegressionResponse",
        "MultiInferenceRequest MultiInferenceResponse GetModelMetadataRequest GetModelMetadataResponse SignatureDefMap",
        "GetModelStatusRequest GetModelStatusResponse ReloadConfigRequest ReloadConfigResponse ModelServerConfig",
        "PredictionLog BatchingParameters TensorProto Example HealthCheckRequest HealthCheckResponse ModelSpec",
    ],
)
def test_every_message_of_the_api_is_there(name: str) -> None:
    for one in name.split():
        assert getattr(messages, one).DESCRIPTOR.name == one
        assert getattr(messages.raw, one).DESCRIPTOR.name == one


def test_an_unknown_message_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no message 'PredictRequests'"):
        _ = messages.PredictRequests


def test_the_same_class_is_given_each_time() -> None:
    assert messages.TensorProto is messages.TensorProto
    assert messages.TensorProto is not messages.raw.TensorProto
    assert type(messages.PredictRequest().inputs["x"]) is messages.TensorProto


def test_raw_messages_have_the_same_bytes_on_the_wire() -> None:
    values = np.array([1.5, -2, 3], np.float32)
    raw = messages.raw.PredictRequest()
    raw.inputs["x"].dtype = 1
    raw.inputs["x"].float_val.append(values.tobytes())
    plain = messages.PredictRequest.FromString(raw.SerializeToString())
    assert list(plain.inputs["x"].float_val) == [1.5, -2, 3]
    again = messages.raw.PredictRequest.FromString(plain.SerializeToString())
    assert list(again.inputs["x"].float_val) == [values.tobytes()]


def test_metadata_is_unpacked() -> None:
    signatures = messages.SignatureDefMap()
    signatures.signature_def["serving_default"].inputs["x"].name = "x:0"
    response = messages.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    read = messages.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(read)
    assert read.signature_def["serving_default"].inputs["x"].name == "x:0"


@pytest.mark.slow
def test_the_shipped_file_is_what_the_installed_packages_say() -> None:
    pytest.importorskip("tensorflow_serving")
    tool = REPOSITORY / "tools" / "make_serving_messages.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
