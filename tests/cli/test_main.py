import subprocess
import sys

import pytest
from typer.testing import CliRunner

import experiments_manager
from experiments_manager.cli.main import app, run
from experiments_manager.common.exit_codes import MEANINGS

COMMANDS = [
    "train",
    "resume",
    "check",
    "evaluate",
    "explain",
    "serve",
    "predict",
    "runs",
    "compare",
    "report",
    "board",
    "settings",
    "new",
    "doctor",
    "reproduce",
    "submit",
    "logs",
    "cancel",
    "data",
    "kafka",
    "federate",
    "sweep",
]


def test_help_names_all_commands_and_exit_codes():
    help_text = CliRunner().invoke(app, ["--help"]).output
    listed = help_text.partition("Commands:")[2].split("\n\n")[0]
    assert [line.split()[0] for line in listed.strip().splitlines()] == COMMANDS
    for code, meaning in MEANINGS.items():
        assert f"{code.value}  {meaning}" in help_text


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_no_help_is_cut_short(arguments):
    assert "..." not in CliRunner().invoke(app, arguments).output.replace("[ARGS]...", "").replace("{RUN}...", "")


def test_help_imports_neither_tensorflow_nor_other_slow_packages():
    code = (
        "import sys\n"
        "from experiments_manager.cli.main import run\n"
        "code = run(['--help'])\n"
        "slow = {'tensorflow', 'keras', 'numpy', 'pandas', 'matplotlib', 'pydantic', 'rich', 'confluent_kafka'}\n"
        "slow &= set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_that_of_the_package():
    assert CliRunner().invoke(app, ["--version"]).output == f"{experiments_manager.__version__}\n"


def test_a_misspelt_command_is_bad_input_and_the_nearest_one_is_named(capsys):
    assert run(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


def test_a_fault_of_our_own_asks_for_a_report_and_shows_no_traceback(monkeypatch, capsys):
    def fail():
        raise ZeroDivisionError("halved nothing")

    monkeypatch.setattr("experiments_manager.cli.main.stop_listening", fail)
    assert run(["runs"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ZeroDivisionError: halved nothing\n")
    assert "Please report it" in error
    assert "Traceback" not in error


def test_debug_shows_the_traceback(monkeypatch, capsys):
    def fail():
        raise ZeroDivisionError("halved nothing")

    monkeypatch.setattr("experiments_manager.cli.main.stop_listening", fail)
    assert run(["runs", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
