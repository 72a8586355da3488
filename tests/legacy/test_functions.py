"""`experiments_manager.run` and what else scripts for the framework before this one call."""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import experiments_manager as em
from experiments_manager.common.errors import CommandLineError
from experiments_manager.runs.run_settings import load_run_settings
from experiments_manager.settings import SettingsError

HPARAMS = """
        hparams = {"rate": 0.05, "width": 4, "shape": (2, 3)}
        learning_rate = hparams["rate"]
        figures = tensorboard = False
"""


@pytest.fixture
def file(settings_file, tmp_path, monkeypatch, tensorflow):
    """A settings file with hparams, in whose directory the scripts run."""
    monkeypatch.chdir(tmp_path)
    return settings_file(HPARAMS)


def manifest(result):
    return em.load_run(result["sessionFolder"]).manifest


@pytest.mark.slow
def test_a_run_gives_loss_model_folder_and_steps(file):
    file.write_text(file.read_text() + "export = True\n")
    flags = em.get_commands().parse_args(["-u", str(file), "--procID", "7"])
    result = em.run(flags)
    run = em.load_run(result["sessionFolder"])
    assert result == {
        "loss": run.manifest["metrics"]["loss"],
        "status": "ok",
        "last_exported_model": str(run.path / run.manifest["exported_model"]),
        "sessionFolder": str(run.path),
        "global_step": 10,
    }
    assert run.manifest["state"] == "finished"
    assert run.manifest["hparams"]["procID"] == "7"


def test_hparams_update_those_of_the_file_whatever_they_were(file):
    external = {"rate": np.float64(0.5), "width": 8.0, "added": "new", "shape": [1]}
    result = em.run(em.get_default_args(), train_config_script=str(file), external_hparams=external)
    hparams = {"rate": 0.5, "width": 8.0, "shape": [1], "added": "new"}
    assert manifest(result)["hparams"] == hparams
    assert all(text in Path(result["sessionFolder"]).name for text in ("rate0.5", "width8.0", "addednew"))
    settings = load_run_settings(em.load_run(result["sessionFolder"]))
    assert settings.hparams == hparams | {"shape": (1,)}
    assert settings.resolve("learning_rate") == 0.5
    assert file.read_text().count("hparams = ") == 1


def test_what_was_added_to_hparams_is_there_after_a_resume_and_in_the_settings_of_the_run(file):
    file.write_text(file.read_text() + 'epochs = hparams["added"]\n')  # so that the resume has steps to train
    result = em.run(file, {"added": 1})
    flags = argparse.Namespace(model_dir=result["sessionFolder"])
    again = em.run(flags, external_hparams={"added": 2})
    assert again["sessionFolder"] == result["sessionFolder"]
    assert manifest(again)["hparams"]["added"] == 2
    with pytest.raises(SettingsError, match="unknown key of `hparams`"):
        em.run(flags, external_hparams={"another": 2})

    file.write_text("raise RuntimeError('not read')")
    run_dir = Path(result["sessionFolder"])
    for arguments in (
        {"filename": None, "restart_from_sessionFolder": run_dir},
        {"filename": run_dir / "experiment_settings.py", "isServingModel": True},
    ):
        settings, folder = em.loadExperimentsSettings(**arguments)
        assert settings.hparams["added"] == 2
        assert folder == str(run_dir)


def test_a_file_without_hparams_gets_them(settings_file):
    settings = em.load_settings(settings_file(), hparams={"added": 1})
    assert settings.hparams == {"added": 1}


def test_a_session_folder_takes_numbered_runs(file, tmp_path):
    result = em.run(file, external_hparams={"session_folder": str(tmp_path / "mine"), "session_number": 3})
    assert result["sessionFolder"] == str(tmp_path / "mine" / "expe_3")
    assert "session_folder" not in manifest(result)["hparams"]


def test_an_interruption_ends_a_loop_of_runs(settings_file, tmp_path, monkeypatch, tensorflow):
    monkeypatch.chdir(tmp_path)
    file = settings_file(
        """
        import os, signal

        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                os.kill(os.getpid(), signal.SIGINT)

        callbacks = [Stop()]
        """
    )
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"experiments_manager.resume\('"):
        em.run(file)
    assert signal.getsignal(signal.SIGINT) is before
    [run] = em.list_runs(tmp_path / "experiments")
    assert run.state == "interrupted"


@pytest.mark.parametrize(
    ("flags", "hparams", "message"),
    [
        ({}, {}, "Expected --usersettings=FILE to train"),
        ({"usersettings": "a.py", "distributed": True}, {}, "a run trains on one machine"),
        ({"usersettings": "a.py"}, {"isFLserver": True}, "start: experiments_manager federate server a.py"),
        ({"start_server": True}, {}, "Expected --model_dir DIR"),
        ({"predict": True}, {}, "Expected --model_dir DIR"),
    ],
)
def test_what_cannot_be_done_is_refused_as_on_the_command_line(flags, hparams, message):
    with pytest.raises(CommandLineError, match=message):
        em.run(argparse.Namespace(**flags), external_hparams=hparams)


def test_serving_and_asking_are_handed_on(file, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("experiments_manager.api.serve", lambda path, **options: calls.append((path, options)))
    monkeypatch.setattr(
        "experiments_manager.cli.commands.predict.predict", lambda run, **options: calls.append((run, options))
    )
    flags = em.get_default_args()
    flags.model_dir, flags.start_server, flags.version = tmp_path, True, 3
    assert em.run(flags) is None
    flags.start_server, flags.predict_stream, flags.version = False, -1, 0
    assert em.run(flags) is None
    flags.predict_stream, flags.predict = 0, True
    assert em.run(flags) is None
    served, *asked = calls
    assert served[0] == str(tmp_path)
    assert served[1]["model_version"] == 3
    assert asked == [
        (tmp_path, {"count": None, "model_version": None, "debug": False}),
        (tmp_path, {"count": 1, "model_version": None, "debug": False}),
    ]


def test_settings_are_loaded_with_the_folder_that_a_run_would_have(file, tmp_path):
    settings, folder = em.loadExperimentsSettings(str(file))
    assert (settings.nbEpoch, settings.batch_size) == (2, 8)
    assert folder.startswith("experiments/curve_rate0.05_width4_shape2-3_")
    assert not Path(folder).exists()


def test_a_function_that_is_gone_names_what_to_use():
    with pytest.raises(AttributeError, match="has no attribute 'do_inference'. Use `Client`"):
        _ = em.do_inference


def test_none_of_it_imports_tensorflow_before_there_is_something_to_train(settings_file, tmp_path):
    (tmp_path / "light.py").write_text("loss = 'mse'\nlearning_rate = 1.0\ndef dataset(split): ...\ndef model(): ...\n")
    code = (
        "import sys, experiments_manager as em\n"
        "em.run, em.get_default_args().usersettings, em.loadExperimentsSettings('light.py')\n"
        "sys.exit(str({'tensorflow', 'keras'} & set(sys.modules) or ''))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.strip() == ""
