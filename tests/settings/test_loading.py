import pickle
import sys

import pytest

from experiments_manager.settings import Problem, SettingsError, load_settings

REST = "loss = 'mse'\nlearning_rate = 0.1\ndef dataset(split): pass\n"


def problems_of(path, overrides=(), **options):
    with pytest.raises(SettingsError) as caught:
        load_settings(path, overrides, **options)
    return caught.value.problems


def test_values_are_attributes_and_what_is_not_given_has_its_default(write):
    settings = load_settings(write("epochs = 7\n"))
    assert settings.epochs == 7
    assert settings.batch_size == 32
    assert settings.values()["monitor"] == "val_loss"


def test_the_session_is_named_after_the_file(write):
    assert load_settings(write("", "mysettings_waves.py")).session_name == "waves"
    assert load_settings(write("session_name = 'ripples'\n", "mysettings_waves.py")).session_name == "ripples"


def test_every_wrong_value_is_reported_at_once_with_its_line(write):
    path = write(
        """\
        batch_size = 0
        epochs = 2.5
        export = "yes"
        class_names = ["a", 1]
        mixed_precision = "half"
        """
    )
    found = problems_of(path)
    assert [(problem.line, problem.name) for problem in found] == [
        (1, "batch_size"),
        (2, "epochs"),
        (3, "export"),
        (4, "class_names"),
        (5, "mixed_precision"),
    ]
    assert str(found[0]) == (
        "mysettings_case.py:1: batch_size: invalid value. Expected int of 1 or more, got 0. Correct it."
    )


def test_a_value_that_is_long_or_cannot_be_shown_does_not_spoil_the_message(write):
    path = write("class Odd:\n  def __repr__(self): raise ValueError\nepochs = Odd()\nmonitor = ['x' * 500]\n")
    odd, long = problems_of(path)
    assert odd.text.endswith("got <Odd>. Correct it.")
    assert len(long.text) < 200


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')"])
def test_numbers_are_finite(write, value):
    (problem,) = problems_of(write(f"request_timeout = {value}\n"))
    assert problem.name == "request_timeout"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("class_names = ('a', 'b')", ["a", "b"]),
        ("import numpy as np; class_names = np.array(['a', 'b'])", ["a", "b"]),
        ("import numpy as np; class_names = ['a', 'b']; batch_size = np.int64(3)", ["a", "b"]),
    ],
)
def test_tuples_and_numpy_values_are_taken_for_what_they_hold(write, line, value):
    assert load_settings(write(line + "\n")).class_names == value


def test_the_value_that_counts_is_the_last_one(write):
    settings = load_settings(write("epochs = 'wrong at first'\nepochs = 3\n"))
    assert settings.epochs == 3
    assert settings.location("epochs") == "mysettings_case.py:2"


def test_a_missing_file_is_reported_with_the_nearest_name_in_its_folder(write):
    write("", "mysettings_waves.py")
    (problem,) = problems_of("mysettings_wave.py")
    assert problem.place == "mysettings_wave.py"
    assert problem.text == "file not found. Did you mean mysettings_waves.py?"


def test_a_missing_file_is_reported_with_the_settings_files_of_its_folder(write):
    for name in ("mysettings_waves.py", "mysettings_digits.py", "model_cnn.py"):
        write("", name)
    (problem,) = problems_of("mysettings_classification.py")
    assert problem.text == "file not found. There are mysettings_digits.py, mysettings_waves.py."
    assert problems_of(".")[0].text.endswith(
        "Expected a Python file. There are mysettings_digits.py, mysettings_waves.py."
    )


def test_a_missing_folder_is_reported_as_one(write):
    write("")
    (problem,) = problems_of("nowhere/mysettings_wave.py")
    assert "nor the folder nowhere" in problem.text


def test_a_folder_is_no_settings_file(tmp_path):
    (problem,) = problems_of(tmp_path)
    assert problem.text.startswith("this is a folder. Expected a Python file.")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mysettings_x.py"
    path.write_bytes(b"\xff\xfe\x00 = 3")
    (problem,) = problems_of(path)
    assert problem.name in ("file", "syntax")


def test_an_error_of_the_module_is_reported_at_its_own_line_in_a_helper(write):
    write("def ratio(a):\n    return a / 0\n", "helpers_of_case.py", complete=False)
    path = write("from helpers_of_case import ratio\nbatch_size = ratio(3)\n")
    (problem,) = problems_of(path)
    assert problem.place == "helpers_of_case.py:2"
    assert problem.name == "ZeroDivisionError"


def test_a_syntax_error_in_a_helper_is_reported_there(write):
    write("def broken(:\n", "helpers_of_case.py", complete=False)
    (problem,) = problems_of(write("import helpers_of_case\n"))
    assert problem.place == "helpers_of_case.py:1"


def test_a_module_that_is_not_installed_is_named(write):
    (problem,) = problems_of(write("import no_such_package\n"))
    assert problem.place == "mysettings_case.py:1"
    assert "Install 'no_such_package'" in problem.text


def test_a_module_that_exits_is_reported(write):
    (problem,) = problems_of(write("import sys\nsys.exit(3)\n"))
    assert (problem.line, problem.name) == (2, "SystemExit")


def test_the_cause_is_kept_for_a_traceback(write):
    with pytest.raises(SettingsError) as caught:
        load_settings(write("1 / 0\n"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_file_that_is_not_python_throughout_is_not_executed(write, tmp_path):
    path = write("open('trace', 'w').close()\nbatch_size = 3 3\n")
    assert [problem.name for problem in problems_of(path)] == ["syntax"]
    assert not (tmp_path / "trace").exists()


def test_an_imported_module_is_no_setting_although_it_is_called_so(write):
    write("", "callbacks.py", complete=False)
    settings = load_settings(write("import callbacks\nimport profile\n"))
    assert not settings.has("callbacks")
    assert settings.profile is False


def test_hooks_may_be_imported(write):
    write("def dataset(split):\n    return split.upper()\n", "my_hooks.py", complete=False)
    path = write("from my_hooks import dataset\nloss = 'mse'\nlearning_rate = 1.0\nmodel = lambda: 3\n", complete=False)
    settings = load_settings(path)
    assert settings.call("dataset", split="test") == "TEST"
    assert settings.call("model") == 3


def test_hooks_from_a_star_import_count_and_a_missing_one_is_still_found(write):
    write("def dataset(split): pass\nloss = 'mse'\n", "my_hooks.py", complete=False)
    path = write("from my_hooks import *\ndef model(): pass\n", complete=False)
    assert [problem.name for problem in problems_of(path)] == ["learning_rate"]


def test_a_wrapped_hook_is_checked_when_it_is_there(write):
    path = write(
        """\
        import functools

        def twice(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)
            return wrapper

        @twice
        def callbacks(modl):
            return []
        """
    )
    (problem,) = problems_of(path)
    assert (problem.line, problem.name) == (9, "callbacks") or (problem.line, problem.name) == (10, "callbacks")
    assert "Did you mean `model`?" in problem.text


def test_a_value_in_the_place_of_a_function_is_refused(write):
    (problem,) = problems_of(write("serving = 3\n"))
    assert str(problem).startswith("mysettings_case.py:1: serving: not a function. Expected a function, got int.")


def test_the_model_file_is_looked_for_from_the_working_directory_first(write):
    text = REST + "model_file = 'model_a.py'\n"
    write("def model(): return 'beside'\n", "sub/model_a.py", complete=False)
    path = write(text, "sub/mysettings_a.py", complete=False)
    assert load_settings(path).call("model") == "beside"
    write("def model(): return 'from here'\n", "model_a.py", complete=False)
    settings = load_settings(path)
    assert settings.call("model") == "from here"
    assert settings.model_name == "model_a"


def test_a_model_file_that_is_not_there_is_reported_with_the_nearest(write):
    write("def model(): pass\n", "model_cnn.py", complete=False)
    text = REST + "model_file = 'model_cn.py'\n"
    (problem,) = problems_of(write(text, complete=False))
    assert (problem.line, problem.name) == (4, "model_file")
    assert "Did you mean model_cnn.py?" in problem.text


def test_a_model_file_without_model_is_reported_in_that_file(write):
    write("def modle(hparams): pass\n", "model_a.py", complete=False)
    text = REST + "model_file = 'model_a.py'\n"
    (problem,) = problems_of(write(text, complete=False))
    assert problem.place == "model_a.py:1"
    assert "Did you mean `modle` for it (line 1)?" in problem.text


def test_the_model_file_may_import_the_settings_module(write):
    write("from mysettings_a import width\ndef model(): return width\n", "model_a.py", complete=False)
    text = REST + "model_file = 'model_a.py'\nepochs = 2\nwidth = epochs\n"
    settings = load_settings(write(text, "mysettings_a.py", complete=False), ["epochs=5"])
    assert settings.call("model") == 5


def test_a_snapshot_is_loaded_from_its_own_folder_alone(write, tmp_path):
    text = "import helpers_s\nloss = 'mse'\nlearning_rate = 0.1\ndef dataset(split): return helpers_s.where\n"
    text += "model_file = '{}'\n"
    write("where = 'original'\n", "helpers_s.py", complete=False)
    write("def model(): return 'original'\n", "nets/model_s.py", complete=False)
    write("where = 'snapshot'\n", "run/settings/helpers_s.py", complete=False)
    write("def model(): return 'snapshot'\n", "run/settings/model_s.py", complete=False)
    for named in ("nets/model_s.py", str(tmp_path / "nets/model_s.py")):
        path = write(text.format(named), "run/settings/mysettings_s.py", complete=False)
        settings = load_settings(path, model_file_search=tmp_path / "run/settings")
        assert settings.call("model") == "snapshot"
        assert settings.call("dataset", split="train") == "snapshot"


def test_a_snapshot_does_not_reach_for_the_original(write, tmp_path):
    text = REST + "model_file = 'model_s.py'\n"
    write("def model(): return 'original'\n", "model_s.py", complete=False)
    path = write(text, "run/settings/mysettings_s.py", complete=False)
    (problem,) = problems_of(path, model_file_search=tmp_path / "run/settings")
    assert problem.name == "model_file"


def test_a_class_of_the_module_can_be_a_dataclass_and_be_pickled(write):
    settings = load_settings(
        write(
            """\
            from __future__ import annotations
            import dataclasses

            @dataclasses.dataclass
            class Sample:
                value: int = 3
            """
        )
    )
    assert pickle.loads(pickle.dumps(settings.module.Sample(4))) == settings.module.Sample(4)


def test_all_of_pythons_ways_to_bind_a_name_work(write):
    settings = load_settings(
        write(
            """\
            import os.path
            from math import *
            count: int = 2
            first, *rest = [1, 2, 3]
            squares = [item * count for item in rest]
            if (last := max(squares)) > 3:
                count += 1
            try:
                1 / 0
            except ZeroDivisionError as error:
                kind = type(error).__name__
            del first
            class Holder:
                inside = [count for _ in range(2)]
            def later():
                return count, pi, os.path.sep
            names = sorted(name for name in locals() if name.startswith("squ"))
            """
        )
    )
    module = settings.module
    assert module.squares == [4, 6]
    assert module.later()[0] == 3
    assert module.Holder.inside == [3, 3]
    assert module.kind == "ZeroDivisionError"
    assert module.names == ["squares"]
    assert not hasattr(module, "first")
    assert not hasattr(module, "error")
    assert module.__annotations__ == {"count": int}


def test_no_path_of_the_user_is_left_on_the_import_path(write):
    before = list(sys.path)
    load_settings(write(""))
    assert sys.path == before


def test_problems_are_ordered_by_file_and_line_and_equal_ones_are_one():
    one, two = Problem("b.py", 2, "x", "late."), Problem("a.py", 9, "x", "early.")
    assert SettingsError([one, two, one]).problems == [two, one]


def test_an_unknown_attribute_names_the_reference(write):
    settings = load_settings(write(""))
    with pytest.raises(AttributeError, match="There is no setting 'batchsize'"):
        settings.batchsize  # noqa: B018
