import pytest

from experiments_manager.settings import SettingsError, load_settings


def problem_of(path, *overrides):
    with pytest.raises(SettingsError) as caught:
        load_settings(path, list(overrides))
    (problem,) = caught.value.problems
    return problem


def test_what_the_module_derives_from_an_overridden_value_follows(write):
    path = write("epochs = 4\nhalf = epochs // 2\nhparams = {'width': 3}\nwidths = [hparams['width']] * 2\n")
    settings = load_settings(path, ["epochs=10", "hparams.width=5"])
    assert settings.module.half == 5
    assert settings.module.widths == [5, 5]
    assert settings.hparams == {"width": 5}
    assert settings.overrides == {"epochs": 10, "hparams.width": 5}


@pytest.mark.parametrize(
    "form",
    [
        "epochs: int = 4",
        "epochs, other = 4, 5",
        "for epochs in (3, 4): pass",
        "other = epochs = 4",
        "if (epochs := 4): pass",
        "epochs = 2\nepochs += 2",
        "from numbers_of_case import epochs",
        "from numbers_of_case import *",
        "import contextlib\nwith contextlib.nullcontext(4) as epochs: pass",
    ],
)
def test_every_form_of_assignment_is_overridden(write, form):
    write("epochs = 4\n", "numbers_of_case.py", complete=False)
    settings = load_settings(write(form + "\ndouble = epochs * 2\n"), ["epochs=10"])
    assert settings.epochs == 10
    assert settings.module.double == 20


def test_functions_see_the_override(write):
    path = write("epochs = 4\ndef callbacks():\n    return epochs, [epochs for _ in 'ab']\n")
    assert load_settings(path, ["epochs=9"]).call("callbacks") == (9, [9, 9])


@pytest.mark.parametrize(
    ("current", "text", "value"),
    [
        ("True", "false", False),
        ("True", "0", False),
        ("3", "-4", -4),
        ("0.5", "1", 1.0),
        ("0.5", "1e-3", 0.001),
        ("'adam'", "sgd", "sgd"),
        ("'7'", "8", "8"),
        ("'a'", "none", "none"),
        ("3", "None", None),
        ("None", "3", 3),
        ("None", "word", "word"),
        ("[1, 2]", "[3]", [3]),
        ("[1, 2]", "3,4", [3, 4]),
        ("['a']", "b,c", ["b", "c"]),
        ("(1, 2)", "(3, 4)", (3, 4)),
        ("{'a': 1}", "{'b': 2}", {"b": 2}),
    ],
)
def test_a_text_takes_the_type_of_what_it_overrides(write, current, text, value):
    settings = load_settings(write(f"hparams = {{'entry': {current}}}\n"), [f"hparams.entry={text}"])
    assert settings.hparams["entry"] == value
    assert type(settings.hparams["entry"]) is type(value)


@pytest.mark.parametrize(("current", "text"), [("3", "0.5"), ("True", "maybe"), ("0.5", "fast"), ("3", "True")])
def test_a_text_that_does_not_read_as_that_type_is_refused(write, current, text):
    problem = problem_of(write(f"hparams = {{'entry': {current}}}\n"), f"hparams.entry={text}")
    assert problem.place == "override"
    assert problem.text.startswith("invalid value. Expected ")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("epochs=5", "epochs", 5),
        ("ema_momentum=none", "ema_momentum", None),
        ("gpus=0,1", "gpus", [0, 1]),
        ("gpus=1", "gpus", [1]),
        ("gpus=[]", "gpus", []),
        ("class_names=cat,dog", "class_names", ["cat", "dog"]),
        ("session_name=3", "session_name", "3"),
        ("gradient_clip_norm=1", "gradient_clip_norm", 1.0),
        ("export=off", "export", False),
        ("mixed_precision=bfloat16", "mixed_precision", "bfloat16"),
        ("train_data_dir=/data/a=b", "train_data_dir", "/data/a=b"),
        ("train_data_dir=on", "train_data_dir", "on"),
        ("train_data_dir=('a', 'b')", "train_data_dir", ("a", "b")),
    ],
)
def test_a_setting_that_the_file_does_not_give_takes_its_type_from_the_table(write, text, name, value):
    assert getattr(load_settings(write(""), [text]), name) == value


def test_a_float_is_refused_for_a_whole_number(write):
    problem = problem_of(write("epochs = 3\n"), "epochs=2.5")
    assert str(problem) == "override: epochs: invalid value. Expected int of 1 or more, got '2.5'."


def test_a_mapping_gives_typed_values(write):
    path = write("hparams = {'rate': 0.5, 'units': 3}\n")
    assert load_settings(path, {"hparams.rate": 1, "units": 4, "epochs": 2}).hparams == {"rate": 1.0, "units": 4}
    with pytest.raises(SettingsError, match="Expected int as 3, got 0.5"):
        load_settings(path, {"units": 0.5})


def test_overrides_of_a_loaded_module_load_it_again(write):
    path = write("hparams = {'rate': 0.5}\nlearning_rate = hparams['rate']\n")
    first = load_settings(path, ["rate=1", "epochs=3", "loss=mae"])
    second = load_settings(path, first.overrides)
    assert second.values() == first.values()
    assert second.loss == "mae"


def test_a_bare_name_reaches_into_hparams_where_no_setting_is_called_so(write):
    path = write("hparams = {'width': 3, 'epochs': 5}\nepochs = hparams['epochs'] + 1\n")
    settings = load_settings(path, ["width=4", "epochs=9"])
    assert settings.hparams == {"width": 4, "epochs": 5}
    assert settings.epochs == 9


def test_hparams_that_are_filled_step_by_step_are_overridden_at_each_step(write):
    path = write(
        """\
        hparams = {}
        hparams["rate"] = 0.5
        hparams.update(width=3)
        hparams |= {"depth": 1}
        rate = hparams["rate"]
        """
    )
    settings = load_settings(path, ["rate=0.25", "width=7", "depth=2"])
    assert settings.hparams == {"rate": 0.25, "width": 7, "depth": 2}
    assert settings.module.rate == 0.25
    assert type(settings.hparams) is dict
    assert settings.hparams is settings.module.hparams


def test_hparams_can_be_replaced_as_a_whole(write):
    settings = load_settings(write("hparams = {'a': 1}\n"), {"hparams": {"a": 2, "b": 3}, "hparams.b": 4})
    assert settings.hparams == {"a": 2, "b": 4}


def test_a_legacy_name_overrides_and_is_overridden(write):
    path = write("nbEpoch = 4\nweights_moving_averages = True\ntwice = nbEpoch * 2\n")
    settings = load_settings(path, ["epochs=5", "ema_momentum=0.9"])
    assert (settings.epochs, settings.module.twice, settings.ema_momentum) == (5, 10, 0.9)
    assert settings.module.weights_moving_averages is True
    settings = load_settings(path, ["nbEpoch=6", "weights_moving_averages=False"])
    assert (settings.epochs, settings.ema_momentum) == (6, None)
    assert settings.module.weights_moving_averages is False


def test_a_hook_that_may_be_a_value_is_overridden_by_one(write):
    settings = load_settings(write(""), ["learning_rate=1", "loss=mae", "optimizer=sgd"])
    assert settings.resolve("learning_rate") == 1.0
    assert settings.resolve("loss") == "mae"
    assert settings.resolve("optimizer") == "sgd"


def test_a_function_that_gives_a_value_is_overridden_by_a_value(write):
    text = "loss = 'mse'\ndef learning_rate(): return 0.1\nrate = learning_rate()\n"
    path = write(text + "def dataset(split): pass\ndef model(): pass\n", complete=False)
    settings = load_settings(path, ["learning_rate=0.01"])
    assert settings.resolve("learning_rate") == 0.01
    assert settings.module.rate == 0.01


def test_a_function_that_makes_something_cannot_be_overridden(write):
    problem = problem_of(write(""), "dataset=digits")
    assert problem.text.startswith("a function cannot be overridden.")


@pytest.mark.parametrize(
    ("override", "near"),
    [("batchsize=3", "batch_size"), ("widht=3", "hparams.width"), ("hparams.widht=3", "hparams.width")],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(write, override, near):
    problem = problem_of(write("hparams = {'width': 3}\n"), override)
    assert problem.name == override.split("=")[0]
    assert problem.text.endswith(f"Did you mean `{near}`?")


def test_a_text_without_a_value_is_refused(write):
    assert problem_of(write(""), "epochs").text == "invalid override. Expected NAME=VALUE, e.g. epochs=5."


def test_all_wrong_overrides_are_reported_at_once(write):
    with pytest.raises(SettingsError) as caught:
        load_settings(write("hparams = {'width': 3}\n"), ["epochs=x", "width=y", "q", "nothing=3"])
    assert [problem.name for problem in caught.value.problems] == ["epochs", "nothing", "q", "width"]


def test_an_override_that_the_module_undoes_is_reported(write):
    path = write("epochs = 4\ndef reset():\n    global epochs\n    epochs = 4\nreset()\n")
    problem = problem_of(path, "epochs=9")
    assert (problem.line, problem.name) == (1, "epochs")
    assert problem.text.startswith("the module changes this after assigning it")


def test_the_number_of_a_process_may_be_added_to_hparams(write):
    assert load_settings(write("hparams = {'a': 1}\n"), ["hparams.procID=3"]).hparams == {"a": 1, "procID": 3}
    assert load_settings(write(""), {"hparams.procID": 3}).hparams == {"procID": 3}


def test_models_are_swapped_by_their_file_alone(write):
    for name in ("mlp", "cnn"):
        write(f"def model(): return '{name}'\n", f"model_{name}.py", complete=False)
    text = "loss = 'mse'\nlearning_rate = 0.1\nmodel_file = 'model_mlp.py'\ndef dataset(split): pass\n"
    path = write(text, complete=False)
    assert load_settings(path).call("model") == "mlp"
    settings = load_settings(path, ["model_file=model_cnn.py"])
    assert settings.call("model") == "cnn"
    assert settings.location("model_file") == "override"


def test_a_required_value_may_come_from_an_override(write):
    path = write("learning_rate = 0.1\ndef dataset(split): pass\ndef model(): pass\n", complete=False)
    assert load_settings(path, ["loss=mse"]).loss == "mse"


def test_the_file_is_never_changed(write):
    path = write("epochs = 3\n")
    before = path.read_bytes()
    load_settings(path, ["epochs=4"])
    assert path.read_bytes() == before
