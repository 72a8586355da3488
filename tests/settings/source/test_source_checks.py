import textwrap

import pytest

from experiments_manager.settings import check_source

COMPLETE = """
loss = "mse"
learning_rate = 0.1
def dataset(split): pass
def model(hparams): pass
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def check_text(text, rest=COMPLETE):
        path = tmp_path / "mysettings_case.py"
        path.write_text(textwrap.dedent(text) + rest)
        return check_source(path)

    return check_text


def test_a_complete_file_has_no_problems(check):
    assert check("") == []


def test_a_syntax_error_is_reported_at_its_line(check):
    (problem,) = check("epochs = 3\nclass_names = [1, 2\n")
    assert problem.name == "syntax"
    assert problem.line in (2, 4)
    assert problem.text.startswith("Python cannot read this: ")


def test_everything_that_is_required_is_reported_at_once(check):
    found = check("", rest="")
    assert [problem.name for problem in found] == ["dataset", "learning_rate", "loss", "model"]
    assert {problem.place for problem in found} == {"mysettings_case.py:1"}
    assert found[1].text == (
        "it is missing. Expected a value or a function of that name (a number or a Keras schedule). Add it."
    )


def test_a_missing_name_is_looked_for_among_those_that_are_there(check):
    (problem,) = check("", rest=COMPLETE.replace("dataset", "datset"))
    assert problem.name == "dataset"
    assert problem.text.endswith("Did you mean `dataset` by `datset` (line 4)?")


def test_a_missing_name_is_found_although_it_is_misspelt_throughout(check):
    (problem,) = check("print(lerning_rate)", rest=COMPLETE.replace("learning_rate", "lerning_rate"))
    assert problem.text.endswith("Did you mean `learning_rate` by `lerning_rate` (line 3)?")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("batchsize", "batch_size"),
        ("batch_sise", "batch_size"),
        ("Epochs", "epochs"),
        ("epoch", "epochs"),
        ("lossweights", "loss_weights"),
        ("classnames", "class_names"),
        ("nbEpochs", "nbEpoch"),
        ("early_stoping_patience", "early_stopping_patience"),
        ("mixed_precison", "mixed_precision"),
        ("get_optimiser", "get_optimizer"),
    ],
)
def test_a_misspelt_name_is_reported_with_the_nearest(check, word, meant):
    (problem,) = check(f"{word} = 3\n")
    assert (problem.line, problem.name) == (1, word)
    assert problem.text.endswith(f"Did you mean `{meant}`?")


def test_a_misspelt_hook_is_reported(check):
    (problem,) = check("def calbacks(model): pass\n")
    assert problem.text.endswith("Did you mean `callbacks`?")


@pytest.mark.parametrize(
    "line",
    [
        "class_list = []",
        "data_dir = 'x'",
        "models = {}",
        "sampler = 3",
        "import numpy as np",
        "from losses import losss",
        "def target_curve(x): return x",
        "nb_test_samples = 3",
        "record_defaults = []",
        "seed = 3",
        "_epoch = 3",
        "batchsize = 3; batch_size = batchsize",
        "batchsize = 3\ndef helper(): return batchsize",
        "batchsize = 3\nbatch_size = 4",
        "[epoch for epoch in range(3)]",
        "def helper():\n    epoch = 3\n    return epoch",
    ],
)
def test_names_of_the_users_own_are_left_alone(check, line):
    assert check(line + "\n") == []


def test_a_parameter_that_is_not_offered_is_reported_with_the_nearest(check):
    (problem,) = check("def callbacks(modl, run): pass\n")
    assert (problem.line, problem.name) == (1, "callbacks")
    assert problem.text == (
        "no parameter `modl` is offered to this hook. Expected some of batch_size, class_names, debug, epochs, "
        "hparams, model, model_name, partition, partitions, run, seed, settings, train_data, validation_data. "
        "Did you mean `model`?"
    )


@pytest.mark.parametrize(
    "line",
    [
        "def callbacks(modl=None, *more, **rest): pass",
        "def loss(y_true, y_pred): pass",
        "def metrics(target, output, sample_weight=None): pass",
        "learning_rate = lambda steps_per_epoch: 0.1 / steps_per_epoch",
        "def dataset(split, /, hparams, *, seed): pass",
        "def augment(x, y): return x, y",
        "class client:\n    def __init__(self, options): pass",
        "class client:\n    pass",
    ],
)
def test_parameters_that_are_offered_or_not_needed_are_left_alone(check, line):
    assert check("", rest=COMPLETE + line + "\n") == []


def test_lambdas_are_checked_as_functions_are(check):
    (problem,) = check("callbacks = lambda modl: []\n")
    assert "no parameter `modl`" in problem.text


def test_a_loss_with_one_unknown_parameter_is_a_hook_with_a_slip(check):
    (problem,) = check("", rest=COMPLETE + "def loss(modle): pass\n")
    assert "Did you mean `model`?" in problem.text


def test_a_setting_under_both_of_its_names_is_reported(check):
    (problem,) = check("epochs = 3\nnbEpoch = 4\n")
    assert str(problem) == (
        "mysettings_case.py:2: nbEpoch: this is another name of `epochs`, given in line 1. Expected one. "
        "Remove the other."
    )


def test_a_model_here_and_in_a_file_is_one_too_many(check):
    (problem,) = check("model_file = 'mysettings_case.py'\n")
    assert (problem.line, problem.name) == (1, "model_file")
    assert "there is a `model` here (line 6), too" in problem.text


def test_the_model_file_is_checked_as_well(check, tmp_path):
    (tmp_path / "model_a.py").write_text("from tensorflow.keras.optimizers.legacy import Adam\ndef model(x): pass\n")
    found = check("model_file = 'model_a.py'\n", rest=COMPLETE.replace("def model(hparams): pass", ""))
    assert [(problem.place, problem.name) for problem in found] == [
        ("model_a.py:1", "tensorflow.keras.optimizers.legacy.Adam"),
        ("model_a.py:2", "model"),
    ]


def test_nothing_is_executed(check, tmp_path):
    check("open('trace', 'w').close()\n")
    assert not (tmp_path / "trace").exists()


def test_a_missing_file_is_a_problem_and_no_exception(tmp_path):
    (problem,) = check_source(tmp_path / "mysettings_none.py")
    assert problem.name == "file"
