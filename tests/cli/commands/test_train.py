"""Real training processes, as few as will do: each one imports TensorFlow."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.cli.main import run

pytestmark = pytest.mark.slow

TALKATIVE = """
import atexit
import os

print("said while the module is executed")
atexit.register(print, "said at the end of the process")


import keras


class Talk(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        import tensorflow as tf

        print("said by Python")
        os.write(1, b"said past Python\\n")
        tf.print("said by TensorFlow", output_stream="file:///dev/stdout")


callbacks = [Talk()]
"""


def test_with_json_standard_output_is_one_object_whatever_hooks_print(run_command, line_experiment):
    line_experiment.write_text(line_experiment.read_text() + TALKATIVE)
    words = ["train", line_experiment.name, "--json", "--set", "epochs=3", "--run-name", "mine"]
    done = run_command(*words, cold=True)
    assert done.returncode == 0, done.stderr
    run_dir = line_experiment.parent / "experiments" / "mine"
    result = json.loads(done.stdout)
    assert set(result) == {"run_dir", "state", "epochs", "best", "metrics", "exported_model"}
    assert (result["run_dir"], result["state"], result["epochs"]) == (str(run_dir), "finished", 3)
    assert result["best"].keys() == {"epoch", "value", "name"}
    assert result["best"]["name"] == "val_loss"
    assert result["metrics"].keys() == {"loss", "val_loss"}
    assert (run_dir / "exported_models") in Path(result["exported_model"]).parents
    for text in ("said while the module is executed", "said by Python", "said past Python", "said at the end"):
        assert text in done.stderr
    for noise in ("oneDNN", "cuInit", "cuda drivers", "absl::InitializeLog", "rebuild TensorFlow"):
        assert noise not in done.stderr
    assert done.stderr.startswith(f"Training {line_experiment.name}\n")
    assert f"Run folder {run_dir}\n" in done.stderr
    manifest = json.loads((run_dir / "run.json").read_text())
    assert manifest["command"][:3] == ["experiments_manager", "train", line_experiment.name]
    assert manifest["overrides"] == {"epochs": 3}
    assert len((run_dir / "metrics.csv").read_text().splitlines()) == 4
    assert list((run_dir / "logs").rglob("events.out.tfevents.*"))


def test_a_hook_that_raises_is_shown_and_the_run_says_failed(line_experiment, monkeypatch, capfd):
    monkeypatch.chdir(line_experiment.parent)
    source = line_experiment.read_text().replace("x = np.linspace", "x = np.load('gone.npy')  # np.linspace")
    line_experiment.write_text(source)
    line = 1 + source[: source.index("np.load")].count("\n")
    assert run(["train", line_experiment.name, "--json"]) == 3
    said = capfd.readouterr()
    message, code = said.err.splitlines()[-2:]
    assert message.startswith(f"{line_experiment.name}:{line}: dataset: FileNotFoundError: ")
    assert code.strip().startswith("x = np.load('gone.npy')")
    assert "Traceback" not in said.err
    result = json.loads(said.out)
    assert (result["state"], result["error"]["type"]) == ("failed", "FileNotFoundError")
    manifest = json.loads((line_experiment.parent / result["run_dir"] / "run.json").read_text())
    assert manifest["state"] == "failed"
    assert manifest["error"]["place"] == f"{line_experiment.name}:{line}"


def test_sigterm_interrupts_a_run_started_by_the_earlier_command_line_and_resume_finishes_it(
    line_experiment, start_command, capfd
):
    line_experiment.write_text(
        line_experiment.read_text().replace("epochs = 2", "epochs = 10_000_000\nearly_stopping_patience = None")
    )
    process = start_command(f"--usersettings={line_experiment.name}", "--procID", "3")
    try:
        run_dir = process.wait_for_first_row(line_experiment.parent / "experiments")
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=300)[1]
    finally:
        process.kill()
    assert process.returncode == 75, errors
    assert f"The command line has a new form: experiments_manager train {line_experiment.name} --set procID=3" in errors
    assert "SIGTERM: stopping at the next step." in errors
    assert errors.splitlines()[-1] == f"To go on: experiments_manager resume {run_dir}"
    manifest = json.loads((run_dir / "run.json").read_text())
    assert (manifest["state"], manifest["hparams"]) == ("interrupted", {"slope": 3.0, "procID": 3})

    more = manifest["epochs"] + 2
    code = run(["resume", str(run_dir), "--set", f"epochs={more}", "--json", "--quiet"])
    said = capfd.readouterr()
    assert (code, said.err) == (0, "")
    result = json.loads(said.out)
    assert (result["run_dir"], result["state"], result["epochs"]) == (str(run_dir), "finished", more)
    epochs = [int(row.split(",")[0]) for row in (run_dir / "metrics.csv").read_text().splitlines()[1:]]
    assert epochs == list(range(1, more + 1))


def test_resume_auto_needs_a_run_name(line_experiment, capsys):
    assert run(["train", str(line_experiment), "--resume", "auto"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("Resume auto does not know which run.")


def test_a_broken_file_is_refused_with_all_its_problems_and_without_tensorflow(tmp_path):
    file = tmp_path / "mysettings_broken.py"
    file.write_text("import keras\nbatchsize = 3\nloss = 'mse'\nlearning_rate = 0.1\n\n\ndef dataset(splitt): ...\n")
    code = (
        "import sys\n"
        "from experiments_manager.cli.main import run\n"
        f"code = run(['check', {file.name!r}])\n"
        "sys.exit(9 if {'tensorflow', 'keras', 'numpy'} & set(sys.modules) else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    starts = [line.split(": ")[:2] for line in done.stderr.splitlines()]
    assert starts == [[f"{file.name}:1", "model"], [f"{file.name}:2", "batchsize"], [f"{file.name}:7", "dataset"]]
