"""A script written for the framework before this one, which lets hyperopt call `experiments_manager.run`."""

import ast
import subprocess
import sys

import pytest
from hyperopt import fmin, hp, tpe

SETTINGS = """
import numpy as np
import tensorflow as tf

session_name = "fit"
hparams = {"hiddenNeurons": 10, "learningRate": 0.1, "nbEpoch": 2}
model_file = "model_fit.py"
nbEpoch = hparams["nbEpoch"]
batch_size = 20
served_input_names = ["input"]
serving_client_timeout_int_secs = 1


def get_learningRate():
    return hparams["learningRate"]


def get_optimizer(model, loss, learning_rate):
    return tf.keras.optimizers.RMSprop(learning_rate=learning_rate)


def get_metrics(model, loss):
    return [tf.keras.metrics.MeanAbsoluteError()]


def get_total_loss(model):
    return "mean_squared_error"


def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch):
    x = np.random.uniform(size=[100, 1], low=-5, high=5).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, x**2)).batch(batch_size)
"""
MODEL = """
import tensorflow as tf


def model(usersettings):
    x = tf.keras.Input(shape=[1], name="input")
    h = tf.keras.layers.Dense(units=usersettings.hparams["hiddenNeurons"], activation="relu")(x)
    return tf.keras.Model(inputs=x, outputs=[tf.keras.layers.Dense(1)(h)])
"""
SCRIPT = """
from hyperopt import STATUS_FAIL, STATUS_OK, Trials, fmin, hp, space_eval, tpe

space = {
    "hiddenNeurons": hp.randint("hiddenNeurons", 20) + 1,
    "learningRate": hp.uniform("learningRate", 1e-5, 1e-2),
}


def single_experiment(hparams):
    found = {"loss": 1e6, "status": STATUS_FAIL, "jobSessionFolder": None, "training_iterations": 0}
    try:
        import experiments_manager

        job_result = experiments_manager.run("mysettings_fit.py", hparams)
        found["loss"], found["jobSessionFolder"] = job_result["loss"], job_result["sessionFolder"]
        found["training_iterations"], found["status"] = job_result["global_step"], STATUS_OK
    except Exception as error:
        print("Job failed: " + str(error))
    return found


trials = Trials()
best = fmin(single_experiment, space, algo=tpe.suggest, trials=trials, max_evals=2)
print(space_eval(space, best)["hiddenNeurons"] >= 1)
print("\\n" + repr([(trial["status"], trial["training_iterations"]) for trial in trials.results]))
"""


@pytest.mark.slow
def test_hyperopt_drives_runs_of_a_legacy_settings_file(tmp_path):
    for name, text in (("mysettings_fit.py", SETTINGS), ("model_fit.py", MODEL), ("script.py", SCRIPT)):
        (tmp_path / name).write_text(text)
    ended = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ast.literal_eval(ended.stdout.splitlines()[-1]) == [("ok", 10), ("ok", 10)], ended.stdout + ended.stderr


def test_hyperopt_refuses_bounds_that_it_once_took():
    with pytest.raises(ValueError, match=r"low should be less than high: 0\.01 is not smaller than 1e-05"):
        hp.uniform("learningRate", 1e-2, 1e-5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'upper'"):
        fmin(float, hp.randint("hiddenNeurons", upper=20) + 1, tpe.suggest, max_evals=1, show_progressbar=False)
