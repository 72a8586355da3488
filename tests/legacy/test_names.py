"""Settings files in the style of the framework before this one; none of these tests imports TensorFlow."""

import ast
import logging
from pathlib import Path

import pytest

from experiments_manager.settings import SettingsError, check_source, load_settings

LEGACY = Path(__file__).parent / "examples"
FILES = sorted(LEGACY.glob("mysettings_*.py"))

HOOKS = """
def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch):
    return raw_data_files_folder, isTraining, batch_size, nbEpoch
def get_learningRate(): return 0.1
def get_total_loss(model): return 'mse'
model_file = 'model_a.py'
"""


@pytest.fixture
def load(write):
    write("def model(usersettings): return usersettings\n", "model_a.py", complete=False)

    def load_text(text, overrides=(), hooks=HOOKS):
        return load_settings(write(text + hooks, complete=False), overrides)

    return load_text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_source_of_a_complete_file_has_no_problems(file):
    assert check_source(file) == []


def test_every_legacy_name_is_in_one_of_the_complete_files():
    from experiments_manager.settings.hooks import HOOKS_BY_OTHER_NAME
    from experiments_manager.settings.schema import BY_OTHER_NAME

    bound = {node.id for file in FILES for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
    for file in FILES:
        bound |= {getattr(node, "name", "") for node in ast.parse(file.read_text()).body}
    assert {*BY_OTHER_NAME, *HOOKS_BY_OTHER_NAME} - bound == {"raw_data_dir_test"}


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("nbEpoch = 7", "epochs", 7),
        ("workingFolder = 'a/b/'", "working_dir", "a/b/"),
        ("useXLA = True", "jit_compile", True),
        ("weights_moving_averages = True", "ema_momentum", 0.99),
        ("weights_moving_averages = False", "ema_momentum", None),
        ("enable_mixed_precision = True", "mixed_precision", "float16"),
        ("enable_mixed_precision = False", "mixed_precision", None),
        ("monitored_loss_name = 'loss'", "monitor", "loss"),
        ("raw_data_dir_train = ('a', 'b')", "train_data_dir", ("a", "b")),
        ("raw_data_filename_extension = '*.csv'", "data_extension", "*.csv"),
        ("nb_train_samples = 1000", "train_size", 1000),
        ("reference_labels = ['x', 'y']", "class_names", ["x", "y"]),
        ("used_gpu_IDs = []", "gpus", []),
        ("distribution_strategy = 'MirroredStrategy'", "strategy", "MirroredStrategy"),
        ("use_profiling = True", "profile", True),
        ("served_input_names = ['x']", "input_names", ["x"]),
        ("served_head_names = ['y']", "output_names", ["y"]),
        ("tensorflow_server_address = '127.0.0.1'", "server_host", "127.0.0.1"),
        ("tensorflow_server_port = 9100", "grpc_port", 9100),
        ("wait_for_server_ready_int_secs = 5", "wait_for_server", 5),
        ("serving_client_timeout_int_secs = 1", "request_timeout", 1),
        ("grpc_max_message_length = 4194304", "max_message_bytes", 4194304),
        ("save_only_last_best_model = True", "keep_versions", 1),
        ("save_only_last_best_model = False", "keep_versions", 0),
        ("steps_per_epoch = 0", "steps_per_epoch", None),
        ("hparams = {'cid': '3'}", "cid", "3"),
    ],
)
def test_a_legacy_value_reads_as_a_canonical_one_and_by_its_own_name(load, line, name, value):
    settings = load(line + "\n")
    assert getattr(settings, name) == value
    bound, _, written = line.partition(" = ")
    if bound not in ("hparams", "steps_per_epoch"):
        assert getattr(settings, bound) == ast.literal_eval(written)


def test_the_legacy_hooks_are_called_with_what_they_ask_for(load):
    settings = load("raw_data_dir_train = 'a'\nraw_data_dir_val = 'b'\nbatch_size = 8\nnbEpoch = 3\n")
    assert settings.dialect.name == "legacy"
    assert settings.call("dataset", split="train") == ("a", True, 8, 3)
    assert settings.call("dataset", split="validation") == ("b", False, 8, 3)
    assert settings.resolve("learning_rate") == 0.1
    assert settings.resolve("loss", model="M") == "mse"
    assert settings.call("model") is settings


def test_parameters_of_other_names_are_understood_by_their_order(load):
    hooks = HOOKS.replace("(raw_data_files_folder, isTraining, batch_size, nbEpoch)", "(folder, train, bs=1, n=2)")
    hooks = hooks.replace("raw_data_files_folder, isTraining, batch_size, nbEpoch", "folder, train, bs, n")
    settings = load("nbEpoch = 3\nbatch_size = 8\ndef get_metrics(m, l): return m, l\n", hooks=hooks)
    assert settings.call("dataset", split="train") == (None, True, 8, 3)
    assert settings.resolve("metrics", model="M", loss="L") == ("M", "L")


def test_the_order_does_not_give_one_thing_twice(load):
    hooks = HOOKS.replace("(raw_data_files_folder, isTraining, batch_size, nbEpoch)", "(batch_size, isTraining, x)", 1)
    with pytest.raises(SettingsError, match="no parameter `x` is offered"):
        load("", hooks=hooks)


def test_a_model_function_may_call_its_settings_as_it_likes(load, write):
    write("def model(cfg): return cfg.hparams['width'], cfg.nbEpoch, cfg.epochs\n", "model_a.py", complete=False)
    assert load("hparams = {'width': 3}\nnbEpoch = 2\n").call("model") == (3, 2, 2)


def test_the_client_is_started_with_its_options(load):
    text = "class Client_IO:\n  def __init__(self, specs={}, debugMode=False): self.got = specs, debugMode\n"
    assert load(text).call("client", options={"a": 1}).got == ({"a": 1}, False)


def test_names_of_the_files_own_that_are_canonical_settings_do_not_disturb(load, caplog):
    with caplog.at_level(logging.WARNING):
        text = "class_names = ['Cat', 'Dog']\nreference_labels = ['category']\n"
        settings = load(text + "shuffle = 1000\naugment = True\n")
    assert settings.class_names == ["category"]
    assert settings.module.class_names == ["Cat", "Dog"]
    assert settings.shuffle is True
    assert not settings.has("augment")
    assert caplog.text.count("mysettings_case.py:3: shuffle is treated as a variable of the file") == 1


def test_a_setting_of_today_counts_in_an_legacy_file(load):
    assert load("gradient_clip_norm = 1.0\nepochs = 4\n").values()["gradient_clip_norm"] == 1.0


def test_an_override_reaches_the_name_that_counts(load):
    settings = load("class_names = ['Cat']\nreference_labels = ['category']\n", ["class_names=a,b"])
    assert settings.class_names == ["a", "b"]
    assert settings.module.reference_labels == ["a", "b"]
    assert settings.module.class_names == ["Cat"]


def test_a_model_file_counts_although_a_name_model_is_left_in_the_settings(load):
    assert load("model = None\n").call("model").dialect.name == "legacy"


def test_a_list_may_stand_in_the_place_of_a_function(load):
    assert load("addon_callbacks = []\n").resolve("callbacks") == []


def test_helpers_of_the_legacy_framework_are_named_if_they_are_missing(load):
    with pytest.raises(SettingsError, match="copy the helpers that you use beside the settings file"):
        load("from deeplearningtools.helpers import loss as helpers_loss\n")


def test_code_that_reaches_through_the_settings_into_the_module_works(load):
    assert load("bottleneck = 3\n").experiment_settings.bottleneck == 3
