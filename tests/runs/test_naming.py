import datetime

import pytest

from experiments_manager.runs import RunError
from experiments_manager.runs.naming import check_run_name, hparams_text, run_name

NOW = datetime.datetime(2024, 2, 29, 7, 8, 9)


def test_a_name_is_session_then_hparams_then_time():
    hparams = {"hidden_units": 10, "learning_rate": 0.1}
    assert run_name("curve", hparams, NOW) == "curve_hidden_units10_learning_rate0.1_2024-02-29--07-08-09"


def test_without_hparams_nothing_stands_between():
    assert run_name("curve", {}, NOW) == "curve_2024-02-29--07-08-09"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-05, "1e-05"),
        (None, "None"),
        ((64, 32), "64-32"),
        ({"a": 1, "b": [2, 3]}, "a1-b2-3"),
        ({"x"}, "x"),
        (max, "max"),
        ("/data/my images", "-data-my-images"),
        ("12:30\n", "12-30-"),
        ("größe", "größe"),
        ("\udcff", "-"),
        ("a;$(rm)*", "a---rm--"),
    ],
)
def test_values_are_readable_and_safe_in_a_file_name(value, text):
    assert hparams_text({"k": value}) == f"k{text}"


def test_numpy_values_look_like_python_values():
    numpy = pytest.importorskip("numpy")
    assert hparams_text({"rate": numpy.float64(0.1), "sizes": numpy.array([1, 2])}) == "rate0.1_sizes1-2"


@pytest.mark.parametrize("session_name", ["../up", ".hidden", "-rf", "a/b", "a:b", "a b", "a+b", "\x00\x1b[31m"])
def test_a_session_name_cannot_leave_the_folder_hide_or_look_like_an_option(session_name):
    name = run_name(session_name, {}, NOW)
    assert not set(name) & set("/: \x00\x1b[")
    assert name[0] not in ".-"


def test_an_empty_session_name_still_gives_a_name():
    assert run_name("", {}, NOW) == "run_2024-02-29--07-08-09"


def test_a_long_name_is_cut_to_200_bytes_and_stays_different():
    common = {f"hyperparameter_{index}": index for index in range(30)}
    first, second = (run_name("demo", {**common, "last": last}, NOW) for last in (1, 2))
    assert first != second
    assert first.startswith("demo_hyperparameter_00_hyperparameter_11_")
    assert first.endswith("_2024-02-29--07-08-09")
    assert len(first.encode()) <= 200 - len("-99999")


def test_a_name_is_never_cut_inside_a_letter():
    name = run_name("é" * 300, {}, NOW)
    assert len(name.encode()) <= 200
    assert name.encode().decode() == name


def test_a_large_number_does_not_look_like_a_small_one():
    assert hparams_text({"scale": 1e20}) == "scale1e20"
    assert hparams_text({"scale": 1e-20}) == "scale1e-20"


@pytest.mark.parametrize("name", ["night_run-2.5_a=1,b", "größe"])
def test_a_good_run_name_is_taken(name):
    check_run_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "-x", "a/b", "a:b", "a b", "a+b", "a\n", "x" * 201])
def test_an_unsafe_run_name_is_refused(name):
    with pytest.raises(RunError, match="--run-name|too long"):
        check_run_name(name)
