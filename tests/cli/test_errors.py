import errno

import pytest

from experiments_manager.cli.main import report
from experiments_manager.common.errors import CommandLineError
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.runs import RunError
from experiments_manager.settings import Problem, SettingsError, UserCodeError
from experiments_manager.training.errors import DataError, DivergedError, TrainingError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError([Problem("a.py", 3, "epochs", "wrong.")]), ExitCode.BAD_INPUT),
        (CommandLineError("too little"), ExitCode.BAD_INPUT),
        (RunError("no run"), ExitCode.BAD_INPUT),
        (TrainingError("no GPU"), ExitCode.BAD_INPUT),
        (DataError("no data"), ExitCode.BAD_INPUT),
        (DivergedError("loss is NaN", step=7), ExitCode.USER_CODE_FAILED),
        (UserCodeError("dataset", "a.py:3", ValueError("no")), ExitCode.USER_CODE_FAILED),
        (OSError(errno.ENOSPC, "No space left on device"), ExitCode.BAD_INPUT),
        (OSError(errno.ENAMETOOLONG, "File name too long"), ExitCode.BAD_INPUT),
        (KeyError("surprise"), ExitCode.BUG),
    ],
)
def test_every_kind_of_error_has_its_exit_code(error, code, capsys):
    assert report(error) is code
    output = capsys.readouterr()
    assert output.err.startswith(str(error) if code is not ExitCode.BUG else "KeyError: 'surprise'")
    assert output.out == ""


def test_every_problem_of_a_settings_module_has_a_line_of_its_own(capsys):
    report(SettingsError([Problem("a.py", 3, "epochs", "wrong."), Problem("a.py", 1, "loss", "it is missing.")]))
    assert capsys.readouterr().err == "a.py:1: loss: it is missing.\na.py:3: epochs: wrong.\n"


def test_a_failing_hook_is_shown_with_its_line_of_code(tmp_path, capsys):
    file = tmp_path / "mysettings_a.py"
    file.write_text("def dataset(split):\n    return open('missing.csv')\n")
    report(UserCodeError("dataset", f"{file}:2", FileNotFoundError("missing.csv")))
    assert capsys.readouterr().err == (
        f"{file}:2: dataset: FileNotFoundError: missing.csv\n    return open('missing.csv')\n"
    )
