import logging
from pathlib import Path

import pytest

from experiments_manager.settings import load_settings
from experiments_manager.settings.settings import Session

HOOKS = """
def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch): pass
def get_learningRate(): return 0.1
def get_total_loss(model): return 'mse'
model_file = 'model_a.py'
"""

READ_THERE = """
random_seed recoverFromCheckpoint sessionFolder session_name workingFolder debug debug_server_addresses model_name
useXLA model_export_filename weights_moving_averages enable_mixed_precision cid hparams_ext batch_size nbEpoch verbose
class_weight sample_weight initial_epoch validation_freq max_queue_size workers use_multiprocessing
quantization_aware_training federated_learning federated_learning_server_address early_stopping_patience
get_learningRate monitored_loss_name monitored_metric raw_data_dir_val raw_data_dir_train raw_data_filename_extension
consume_data_from_kafka used_gpu_IDs distribution_strategy use_profiling nb_train_samples nb_val_samples
kafka_bootstrap_servers get_input_pipeline init_environment get_all_test_data prepare_datasets custom_tensorboard_logs
save_only_last_best_model wait_for_server_ready_int_secs serving_client_timeout_int_secs served_head_names
served_input_names Client_IO tensorflow_server_address tensorflow_server_port get_served_module grpc_max_message_length
hparams model_file get_total_loss get_metrics get_optimizer reference_labels addon_callbacks experiment_settings
hasOrDefault assertType assertPositive_above_zero assertPositive_above_equal_zero has summary
"""


@pytest.fixture
def load(write):
    write("def model(usersettings): return usersettings\n", "model_a.py", complete=False)

    def load_text(text="", overrides=()):
        return load_settings(write(text + HOOKS, complete=False), overrides)

    return load_text


@pytest.mark.parametrize("name", READ_THERE.split())
def test_everything_that_could_be_read_from_the_settings_object_can_be_read(load, name):
    assert hasattr(load(), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recoverFromCheckpoint", False),
        ("sessionFolder", ""),
        ("model_export_filename", ""),
        ("verbose", 1),
        ("sample_weight", []),
        ("initial_epoch", 0),
        ("validation_freq", 1),
        ("max_queue_size", 10),
        ("workers", 1),
        ("use_multiprocessing", False),
        ("federated_learning", False),
        ("debug_server_addresses", "127.0.0.1:2333"),
        ("init_environment", False),
        ("model_name", "model_a"),
    ],
)
def test_its_value_is_that_of_there(load, name, value):
    assert getattr(load(), name) == value


def test_names_that_the_file_binds_for_itself_are_read_from_it(load):
    settings = load("debug_server_addresses = 'here:1'\ndef init_environment(): return 3\n")
    assert settings.debug_server_addresses == "here:1"
    assert settings.init_environment() == 3


def test_in_a_run_the_settings_know_its_folders(load):
    settings = load()
    with settings.during(Session("/runs/a/expe_0", "/runs/a/exported_models", recovers=True)):
        assert settings.recoverFromCheckpoint is True
        assert settings.sessionFolder == "/runs/a/expe_0"
        assert settings.model_export_filename == "/runs/a/exported_models"
    assert settings.sessionFolder == ""


def test_the_model_file_is_a_text_which_may_be_cut(load):
    settings = load()
    assert settings.model_file.split(".")[0].endswith("model_a")
    assert Path(settings.model_file).is_file()


def test_the_methods_read_what_the_file_binds(load):
    settings = load("window = 3\nnone_of_it = 0\n")
    assert settings.hasOrDefault("window", 1) == settings.assertType("window", int, "of samples") == 3
    assert settings.hasOrDefault("other", 1, "take care") == 1
    assert settings.assertPositive_above_zero("window", "") == settings.has("window", "missing") == 3
    assert settings.assertPositive_above_equal_zero("none_of_it", "") == 0
    for failing in (
        lambda: settings.assertType("window", str, "a text"),
        lambda: settings.assertPositive_above_zero("none_of_it", "at least one"),
        lambda: settings.assertType("other", int, "a number"),
        lambda: settings.has("other", "give it"),
    ):
        with pytest.raises(ValueError, match="Expected"):
            failing()


def test_the_summary_names_all_settings(load, caplog):
    with caplog.at_level(logging.INFO):
        text = load("nbEpoch = 7\n").summary()
    assert "epochs = 7" in text.splitlines()
    assert text in caplog.text


def test_canonical_settings_do_without_these_attributes_only_by_their_names(write):
    settings = load_settings(write(""))
    with pytest.raises(AttributeError, match="There is no setting 'nosuch'"):
        settings.nosuch  # noqa: B018
    assert settings.model_file is None
