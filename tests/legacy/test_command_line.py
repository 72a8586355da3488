import signal
import subprocess
import sys

import pytest

from experiments_manager.cli.main import run
from experiments_manager.common.errors import CommandLineError
from experiments_manager.dialects import canonical_command_line
from experiments_manager.legacy.command_line import translate
from tests.helpers.warm_processes import WarmPopen, warm_run


@pytest.mark.parametrize(
    ("legacy", "canonical"),
    [
        (["--usersettings=a.py"], ["train", "a.py"]),
        (["--usersettings", "a.py", "--debug"], ["train", "a.py", "--debug"]),
        (["--debug", "--procID", "4", "--usersettings=a.py"], ["train", "a.py", "--set", "procID=4", "--debug"]),
        (["--model_dir", "runs/a b", "--restart_interrupted"], ["resume", "runs/a b"]),
        (["--restart_interrupted", "--model_dir=runs/a"], ["resume", "runs/a"]),
        (["--model_dir=runs/a", "--predict"], ["predict", "runs/a", "--count", "1"]),
        (["--predict", "--model_dir=runs/a", "--predict_stream=5"], ["predict", "runs/a", "--count", "5"]),
        (["--model_dir=runs/a", "--predict_stream=-1"], ["predict", "runs/a", "--stream"]),
        (["--predict_stream", "-1", "--model_dir=runs/a", "--debug"], ["predict", "runs/a", "--stream", "--debug"]),
        (["--model_dir=runs/a", "--predict_stream"], ["predict", "runs/a", "--stream"]),
        (["--commands"], ["--help"]),
        (["-c"], ["--help"]),
        (["-u", "a.py"], ["train", "a.py"]),
        (["-ua.py", "-d"], ["train", "a.py", "--debug"]),
        (["--user", "a.py"], ["train", "a.py"]),
        (["-u", "a.py", "-pid", "-5"], ["train", "a.py", "--set", "procID=-5"]),
        (["-u", "a.py", "-l", "0"], ["train", "a.py"]),
        (["-r", "-m", "runs/a"], ["resume", "runs/a"]),
        (["-rm", "runs/a"], ["resume", "runs/a"]),
        (["-m", "runs/a"], ["resume", "runs/a"]),
        (["--model_dir=runs/a", "--predict_stream=0"], ["resume", "runs/a"]),
        (["--restart", "--model", "runs/a", "-pid=2"], ["resume", "runs/a", "--set", "procID=2"]),
        (["-s", "-m", "runs/a", "-v", "3"], ["serve", "runs/a", "--model-version", "3"]),
        (["-s", "-m", "runs/a", "--version=0"], ["serve", "runs/a"]),
        (["--version", "3", "-sm", "runs/a"], ["serve", "runs/a", "--model-version", "3"]),
        (
            ["-s", "-m", "d", "--tf_server_container_path", "i"],
            ["serve", "d", "--engine", "apptainer", "--image", "i"],
        ),
        (["-p", "-m", "runs/a", "-d"], ["predict", "runs/a", "--count", "1", "--debug"]),
        (["-m", "runs/a", "-l", "-1"], ["predict", "runs/a", "--stream"]),
        (["-m", "runs/a", "-l5"], ["predict", "runs/a", "--count", "5"]),
        (["-p", "-l", "0", "-m", "runs/a"], ["predict", "runs/a", "--count", "1"]),
        (["--start_server", "--model_dir=runs/a b"], ["serve", "runs/a b"]),
        (["--model_dir", "d", "--start_server", "-psi", "i"], ["serve", "d", "--engine", "apptainer", "--image", "i"]),
        (["--model_dir", "d", "--start_server", "-psi=i"], ["serve", "d", "--engine", "apptainer", "--image", "i"]),
        (["--start_server", "--debug", "--model_dir=d"], ["serve", "d", "--debug"]),
        (["-rounds=3", "-u", "a.py"], ["federate", "server", "a.py", "--insecure", "--rounds", "3"]),
        (
            ["-u", "a.py", "--num_rounds", "5", "-minCl", "4", "-minFit=3", "--min_eval_clients", "2", "-d"],
            [
                *("federate", "server", "a.py", "--insecure", "--rounds", "5"),
                *("--min-clients", "4", "--debug"),
            ],
        ),
        (
            ["--usersettings=a.py", "-agr", "FedAvg", "-locEpoch", "2"],
            ["federate", "server", "a.py", "--insecure", "--strategy", "FedAvg", "--local-epochs", "2"],
        ),
        (
            ["-u", "a.py", "-sim", "-rounds", "5", "-minCl", "4"],
            ["federate", "simulate", "a.py", "--clients", "4", "--rounds", "5"],
        ),
    ],
)
def test_the_legacy_command_line_is_translated(legacy, canonical):
    assert translate(legacy) == canonical


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (["-rounds", "3", "a.py", "--insecure"], ["a.py", "--insecure", "--rounds", "3"]),
        (["a.py", "-minCl=2", "-minFit", "4", "--min-clients", "3"], ["a.py", "--min-clients", "4"]),
        (
            ["a.py", "--agregation", "FedAvg", "--public-keys", "a", "b"],
            ["a.py", "--public-keys", "a", "b", "--strategy", "FedAvg"],
        ),
        (["a.py", "--local_epochs", "2", "--rounds", "5"], ["a.py", "--rounds", "5", "--local-epochs", "2"]),
    ],
)
def test_the_command_for_a_federations_server_takes_the_scripts_options_too(given, canonical, capsys):
    assert canonical_command_line(["federate", "server", *given]) == ["federate", "server", *canonical]
    assert capsys.readouterr().err == ""


def test_the_new_form_is_printed_as_a_hint_that_can_be_pasted_into_a_shell(capsys):
    translate(["--model_dir", "runs/a b", "--restart_interrupted"])
    output = capsys.readouterr()
    assert output.err == "The command line has a new form: experiments_manager resume 'runs/a b'\n"
    assert output.out == ""


@pytest.mark.parametrize(
    ("arguments", "idle"),
    [
        (["-u", "a.py", "-m", "runs/a", "-r"], "--usersettings"),
        (["-u", "a.py", "-psi", "image.sif"], "--singularity_tf_server_container_path"),
        (["-s", "-m", "runs/a", "-pid", "3", "-l", "2"], "--procID, --predict_stream"),
        (["-p", "-m", "runs/a", "-r"], "--restart_interrupted"),
    ],
)
def test_options_that_never_counted_together_are_named(arguments, idle, capsys):
    translate(arguments)
    assert f"Ignored options: {idle}." in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-w", "-log", "-layerSim", "-saveC", "-mulmt"])
def test_options_of_a_federations_server_that_have_nothing_to_do_are_named(option, capsys):
    translate(["-u", "a.py", option, "x"])
    assert f"Ignored option: {option} (--" in capsys.readouterr().err


@pytest.mark.parametrize(
    "canonical",
    [
        [],
        ["--help"],
        ["-h"],
        ["--version"],
        ["--debug"],
        ["train", "a.py", "--debug"],
        ["runs", "--commands"],
        ["--no-such-option"],
    ],
)
def test_canonical_command_line_is_left_alone(canonical, capsys):
    assert translate(canonical) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-u", "a.py", "-r"], "does not say which run to go on with. Expected --model_dir DIR"),
        (["-u", "a.py", "-dist"], "a run trains on one machine.*the settings `gpus`"),
        (["-u", "a.py", "--distributed"], "Omit it"),
        (["-rounds", "3"], "Expected --usersettings FILE with these options"),
        (["-rounds", "many", "-u", "a.py"], "invalid int value: 'many'"),
        (["-u", "a.py", "-v", "2"], "says which version to serve"),
        (["-s", "-m", "a", "-v", "newest"], "--version is 'newest'. Expected the number"),
        (["-u"], "expected one argument"),
        (["--procID", "3"], "Expected --usersettings=FILE"),
        (["--start_server"], "Expected --model_dir DIR"),
        (["--predict"], "--predict does not say which model to ask. Expected --model_dir DIR"),
        (["--model_dir=a", "--predict_stream=all"], "--predict_stream is 'all'. Expected a number"),
        (["--usersettings=a.py", "--epochs=3"], "Unrecognized arguments: --epochs=3"),
        (["-u", "a.py", "b.py"], "Unrecognized arguments: b.py"),
    ],
)
def test_what_cannot_be_translated_is_refused(arguments, message):
    with pytest.raises(CommandLineError, match=message):
        translate(arguments)


@pytest.mark.parametrize("options", [["-r"], ["-s"], ["-p"]])
def test_the_folder_of_a_session_stands_for_its_run(options, tmp_path):
    session = tmp_path / "run" / "expe_0"
    session.mkdir(parents=True)
    assert translate([*options, "-m", str(session)])[1] == str(session)
    (session.parent / "run.json").touch()
    assert translate([*options, "-m", f"{session}/"])[1] == str(session.parent)
    (session / "run.json").touch()
    assert translate([*options, "-m", str(session)])[1] == str(session)


def test_all_commands_are_printed(capsys):
    assert run(["--commands"]) == 0
    assert "Commands:" in capsys.readouterr().out


LEGACY_LINE = """
import numpy as np
import tensorflow as tf

session_name, workingFolder, random_seed = "line", "runs", 1
hparams = {"procID": 0}
nbEpoch, batch_size, early_stopping_patience = 1, 16, 3
raw_data_dir_train = raw_data_dir_val = ""
monitored_loss_name = "val_loss"
served_input_names, served_head_names = ["x"], ["y"]
serving_client_timeout_int_secs, wait_for_server_ready_int_secs = 60, 60
tensorflow_server_address, tensorflow_server_port, rest_port = "127.0.0.1", PORT, REST
custom_tensorboard_logs = None


def get_learningRate():
    return 0.1


def get_optimizer(model, loss, learning_rate):
    return tf.keras.optimizers.SGD(learning_rate)


def get_total_loss(model):
    return "mse"


def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch):
    x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    return tf.data.Dataset.from_tensor_slices((x, (2.0 + int(hparams["procID"])) * x)).batch(batch_size)


def model(usersettings):
    x = tf.keras.Input((1,), name="x")
    return tf.keras.Model(x, tf.keras.layers.Dense(1, name="y")(x))


class Client_IO:
    def __init__(self, clientInitSpecs={}, debugMode=False):
        self.answers = []

    def getInputData(self, idx):
        if idx > 3:
            raise StopIteration
        return {"x": np.full((1, 1), idx, "float32")}

    def decodeResponse(self, result):
        self.answers.append(np.array(result.outputs[served_head_names[0]].float_val).tolist())

    def finalize(self):
        np.savetxt("answers.txt", self.answers)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="ends the server by SIGINT")
def test_a_legacy_file_is_trained_resumed_served_and_asked_by_the_legacy_command_line_alone(
    tmp_path, free_port, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ports = free_port(), free_port()
    file = tmp_path / "mysettings_line.py"
    file.write_text(LEGACY_LINE.replace("PORT", str(ports[0])).replace("REST", str(ports[1])))
    program = [sys.executable, "-m", "experiments_manager"]
    trained = warm_run([*program, "--usersettings", file.name, "--procID", "1"], timeout=600)
    assert trained.returncode == 0, trained.stderr
    [run_dir] = (tmp_path / "runs").iterdir()
    assert "procID1" in run_dir.name
    assert run(["--restart_interrupted", f"--model_dir={run_dir}"]) == 0

    serving = [*program, "--start_server", f"--model_dir={run_dir}"]
    with WarmPopen(serving, stderr=subprocess.PIPE, text=True) as server:
        try:
            for stream in ("-1", "2"):
                assert run([f"--predict_stream={stream}", "-m", str(run_dir)]) == 0
        finally:
            server.send_signal(signal.SIGINT)
            told = server.communicate(timeout=60)[1]
    assert server.returncode == 0, told
    answers = sorted(run_dir.glob("predictions_*/answers.txt"), key=lambda file: file.parent.name)
    assert [len(answer.read_text().splitlines()) for answer in answers] == [3, 2]


@pytest.mark.slow
def test_legacy_options_that_nothing_can_honour_end_the_command_with_what_to_use(tmp_path):
    command = [sys.executable, "-m", "experiments_manager", "-u", "mine.py", "-dist"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert done.stderr.startswith("-dist (--distributed) is not supported")


def test_a_legacy_command_line_may_begin_with_an_option_that_there_is_here_too(tmp_path, capsys):
    assert run(["--version", "3", "-sm", str(tmp_path)]) == 2
    assert f"experiments_manager serve {tmp_path} --model-version 3" in capsys.readouterr().err
