"""Does TensorBoard still have what is written by names that are not public? Each failure names the place to look at."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from experiments_manager.compat import tensorboard as compat
from experiments_manager.monitoring.tensorboard.event_files import EventFile

SEE = "TensorBoard moved or changed {}; see experiments_manager/compat/tensorboard.py"


@pytest.fixture
def read_back(tmp_path):
    """Writes a summary as a run does and reads it as TensorBoard does."""

    def read(summary):
        file = EventFile(tmp_path, first_step=0)
        file.write(summary, step=1)
        file.close()
        accumulator = EventAccumulator(str(tmp_path))
        accumulator.Reload()
        return accumulator

    return read


def test_a_histogram_is_read_as_one(uses, read_back):
    with uses("TensorBoard", "histogram_pb"):
        accumulator = read_back(compat.histogram_summary("weights", np.arange(100.0)))
    assert accumulator.PluginTagToContent("histograms") == {"weights": b""}, SEE.format("histogram_pb")


def test_a_text_is_read_as_one(uses, read_back):
    with uses("TensorBoard", "text_pb"):
        accumulator = read_back(compat.text_summary("notes", "**bold**"))
    assert list(accumulator.PluginTagToContent("text")) == ["notes"], SEE.format("text_pb")


def hparams_data(accumulator, tag):
    return HParamsPluginData.FromString(accumulator.PluginTagToContent("hparams")[tag])


def test_hyperparameters_are_read_as_a_session_of_no_group(uses, read_back):
    with uses("TensorBoard", "session_start_pb"):
        accumulator = read_back(compat.hparams_summary({"rate": 0.5, "name": "a"}))
    start = hparams_data(accumulator, "_hparams_/session_start_info").session_start_info
    assert start.hparams["rate"].number_value == 0.5, SEE.format("session_start_pb")
    assert start.hparams["name"].string_value == "a", SEE.format("session_start_pb")
    assert start.group_name == "", SEE.format("session_start_pb")


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", api_pb2.STATUS_SUCCESS), ("failed", api_pb2.STATUS_FAILURE), ("interrupted", api_pb2.STATUS_UNKNOWN)],
)
def test_the_end_of_a_run_is_read_as_that_of_its_session(uses, read_back, state, status):
    with uses("TensorBoard", "session_end_pb"):
        accumulator = read_back(compat.run_end_summary(state))
    end = hparams_data(accumulator, "_hparams_/session_end_info").session_end_info
    assert end.status == status, SEE.format("session_end_pb")


def test_protocol_buffers_are_those_of_tensorflow_byte_for_byte():
    import tensorflow as tf

    log = {"wall_time": 1.5, "step": 3}
    ours = compat.Event(**log, session_log=compat.SessionLog(status=compat.SessionLog.START))
    theirs = tf.compat.v1.Event(**log, session_log=tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START))
    assert ours.SerializeToString() == theirs.SerializeToString(), SEE.format("its protocol buffers")


def test_the_projectors_configuration_is_written_as_it_reads_it():
    from google.protobuf import text_format

    config = compat.ProjectorConfig()
    config.embeddings.add(tensor_name="a", tensor_shape=[2, 3]).sprite.single_image_dim.extend([8, 8])
    text = text_format.MessageToString(config)
    assert text_format.Parse(text, compat.ProjectorConfig()) == config, SEE.format("ProjectorConfig")
