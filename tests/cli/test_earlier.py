import pytest

from experiments_manager.cli.earlier import translate
from experiments_manager.cli.errors import CommandLineError
from experiments_manager.cli.main import run


@pytest.mark.parametrize(
    ("earlier", "todays"),
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
        (["--start_server", "--model_dir=runs/a b"], ["serve", "runs/a b"]),
        (["--model_dir", "d", "--start_server", "-psi", "i"], ["serve", "d", "--engine", "apptainer", "--image", "i"]),
        (["--model_dir", "d", "--start_server", "-psi=i"], ["serve", "d", "--engine", "apptainer", "--image", "i"]),
        (["--start_server", "--debug", "--model_dir=d"], ["serve", "d", "--debug"]),
    ],
)
def test_the_earlier_command_line_is_translated(earlier, todays):
    assert translate(earlier) == todays


def test_the_new_form_is_printed_as_a_hint_that_can_be_pasted_into_a_shell(capsys):
    translate(["--model_dir", "runs/a b", "--restart_interrupted"])
    output = capsys.readouterr()
    assert output.err == "The command line has a new form: experiments_manager resume 'runs/a b'\n"
    assert output.out == ""


@pytest.mark.parametrize("todays", [[], ["--help"], ["train", "a.py", "--debug"], ["runs", "--commands"]])
def test_todays_command_line_is_left_alone(todays, capsys):
    assert translate(todays) is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model_dir", "runs/a"], "Expected --usersettings=FILE"),
        (["--procID", "3"], "Expected --usersettings=FILE"),
        (["--start_server"], "Expected --model_dir DIR"),
        (["--predict"], "--predict does not say which model to ask. Expected --model_dir DIR"),
        (["--model_dir=a", "--predict_stream=all"], "--predict_stream is 'all'. Expected a number"),
        (["--usersettings=a.py", "--epochs=3"], "Unrecognized arguments: --epochs=3"),
    ],
)
def test_what_cannot_be_translated_is_refused(arguments, message):
    with pytest.raises(CommandLineError, match=message):
        translate(arguments)


def test_all_commands_are_printed(capsys):
    assert run(["--commands"]) == 0
    assert "Commands:" in capsys.readouterr().out
