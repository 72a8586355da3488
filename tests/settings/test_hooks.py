import types

import pytest

from experiments_manager.settings import Lazy, SettingsError, UserCodeError, load_settings
from experiments_manager.settings.hooks import COMMON, HOOKS, HOOKS_BY_ANY_NAME, PARAMETERS, parameter_names


def test_a_hook_gets_what_its_parameters_name_and_nothing_else(write):
    path = write("def callbacks(run, hparams, seed, unused=5): return run, hparams, seed, unused\nhparams = {'a': 1}\n")
    assert load_settings(path).call("callbacks", run="R", model="M", train_data="T") == ("R", {"a": 1}, 42, 5)


def test_what_follows_from_the_settings_need_not_be_offered(write):
    path = write(
        """\
        batch_size = 4
        class_names = ["a"]
        def callbacks(settings, batch_size, epochs, class_names, debug, model_name):
            return settings.batch_size, batch_size, epochs, class_names, debug, model_name
        """
    )
    assert load_settings(path).call("callbacks") == (4, 4, 100, ["a"], False, "mysettings_case")


@pytest.mark.parametrize(
    ("split", "folder", "training"), [("train", "a", True), ("validation", "b", False), ("test", "c", False)]
)
def test_the_folder_and_the_purpose_follow_from_the_split(write, split, folder, training):
    text = "train_data_dir, validation_data_dir, test_data_dir = 'abc'\n"
    path = write("", complete=False)
    path.write_text(
        text + "loss = 'mse'\nlearning_rate = 1.0\ndef model(): pass\n"
        "def dataset(split, data_dir, is_training): return split, data_dir, is_training\n"
    )
    assert load_settings(path).call("dataset", split=split) == (split, folder, training)


def test_positional_only_parameters_are_given_by_position(write):
    assert load_settings(write("def callbacks(run, /, model): return run, model\n")).call(
        "callbacks", run=1, model=2
    ) == (1, 2)


def test_a_lazy_value_is_made_only_for_a_hook_that_asks_for_it(write):
    settings = load_settings(write("def callbacks(model): return model\ndef metrics(): return []\n"))
    made = []
    lazy = Lazy(lambda: made.append(1) or "model")
    assert settings.call("metrics", model=lazy) == []
    assert made == []
    assert settings.call("callbacks", model=lazy) == "model"
    assert made == [1]


def test_what_the_engine_does_not_offer_leaves_the_default(write):
    settings = load_settings(write("def callbacks(run=None): return run\n"))
    assert settings.call("callbacks") is None


@pytest.mark.parametrize("value", ["'mse'", "['mse', 'mae']", "{'a': 'mse'}", "lambda y_true, y_pred: 0"])
def test_a_loss_may_be_a_value(write, value):
    text = f"loss = {value}\nlearning_rate = 1.0\ndef model(): pass\ndef dataset(): pass\n"
    settings = load_settings(write(text, complete=False))
    assert settings.resolve("loss", model=1) is settings.loss
    assert not settings.is_function("loss")


def test_a_callable_instance_is_a_value_and_a_function_is_called(write):
    settings = load_settings(
        write(
            """\
            import functools

            class Schedule:
                def __call__(self, step):
                    return 0.1

            def make(rate, hparams):
                return rate, hparams

            optimizer = Schedule()
            callbacks = functools.partial(make, 3)
            """
        )
    )
    assert settings.resolve("optimizer") is settings.module.optimizer
    assert settings.resolve("callbacks") == (3, {})


def test_a_function_that_a_decorator_wraps_is_called(write):
    settings = load_settings(write("import functools\n@functools.lru_cache\ndef callbacks(run): return [run]\n"))
    assert settings.call("callbacks", run=3) == [3]


def test_an_object_is_no_function_where_only_a_function_may_stand(write):
    with pytest.raises(SettingsError, match="augment: not a function. Expected a function, got Layer."):
        load_settings(write("class Layer:\n  def __call__(self, *args): pass\naugment = Layer()\n"))


def test_a_hook_that_is_not_given_resolves_to_nothing(write):
    settings = load_settings(write("class_weight = None\n"))
    assert settings.resolve("class_weight") is None
    assert not settings.has("class_weight")
    assert not settings.has("metrics")
    assert settings.metrics is None


def test_calling_a_hook_that_is_not_given_says_so(write):
    with pytest.raises(SettingsError, match="client: function not found. Expected a function of that name"):
        load_settings(write("")).call("client")


def test_the_loss_may_be_none_for_models_that_bring_their_own(write):
    text = "loss = None\nlearning_rate = 1.0\ndef model(): pass\ndef dataset(): pass\n"
    assert load_settings(write(text, complete=False)).resolve("loss") is None


def test_a_class_is_instantiated(write):
    settings = load_settings(
        write("class client:\n    def __init__(self, options, debug): self.got = options, debug\n")
    )
    assert settings.call("client", options={"a": 1}).got == ({"a": 1}, False)


def test_an_error_in_a_hook_is_reported_at_the_deepest_line_of_the_users_own(write):
    write("import json\n\ndef parse(text):\n    return json.loads(text)\n", "parsing.py", complete=False)
    settings = load_settings(write("import parsing\ndef callbacks(): return parsing.parse('{')\n"))
    with pytest.raises(UserCodeError) as caught:
        settings.call("callbacks")
    assert caught.value.hook == "callbacks"
    assert caught.value.location == "parsing.py:4"
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value).startswith("parsing.py:4: callbacks: JSONDecodeError: Expecting")


def test_an_error_is_reported_by_the_name_that_the_user_wrote(write):
    path = write("def get_metrics(model, loss): raise KeyError('width')\n")
    with pytest.raises(UserCodeError, match="get_metrics: KeyError: 'width'"):
        load_settings(path).call("metrics", model=1, loss=2)


@pytest.mark.parametrize("line", ["raise StopIteration", "raise SystemExit(1)"])
def test_a_hook_cannot_end_the_program_unnoticed(write, line):
    with pytest.raises(UserCodeError):
        load_settings(write(f"def callbacks(): {line}\n")).call("callbacks")


def test_stop_iteration_of_other_user_code_is_passed_on(write):
    settings = load_settings(write("def read(idx): raise StopIteration\n"))
    with pytest.raises(StopIteration):
        settings.run_user_code("read", settings.module.read, 1)


def test_hooks_and_values_know_where_they_are_given(write):
    settings = load_settings(write("\nepochs = 3\ndef callbacks(): pass\n"), ["batch_size=3"])
    assert settings.location("epochs") == "mysettings_case.py:2"
    assert settings.location("callbacks") == "mysettings_case.py:3"
    assert settings.location("batch_size") == "override"
    assert settings.location("shuffle") == "mysettings_case.py"


def test_legacy_parameter_names_are_understood_in_canonical_hooks(write):
    path = write("def callbacks(usersettings, train_samples, val_samples): return train_samples, val_samples\n")
    assert load_settings(path).call("callbacks", train_data=1, validation_data=2) == (1, 2)


def test_the_tables_fit_together():
    assert set(COMMON) <= set(PARAMETERS)
    for hook in HOOKS.values():
        assert set(hook.offers) <= set(PARAMETERS)
        assert set(hook.positions) <= set(parameter_names(hook).values())
        if hook.other_name:
            assert HOOKS_BY_ANY_NAME[hook.other_name] is hook
    assert isinstance(parameter_names(HOOKS["dataset"]), dict)
    assert not isinstance(HOOKS, types.ModuleType)


def test_a_module_that_a_hook_misses_is_named_with_what_helps(write):
    settings = load_settings(write("def prepare_datasets():\n    import nosuchmodule\n"))
    with pytest.raises(
        UserCodeError, match=r"prepare_datasets: ModuleNotFoundError: .*Install 'nosuchmodule', or put the module"
    ):
        settings.call("prepare_datasets")
