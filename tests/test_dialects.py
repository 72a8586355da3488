"""Plug-ins bring other forms of settings files; the package does without them."""

import subprocess
import sys

from experiments_manager.dialects import CANONICAL, dialect_of, plugins

CANONICAL_FILE = """
loss = "mse"
learning_rate = 0.1
nbEpoch = 3
def dataset(split): return split
def model(hparams): return hparams
"""

WITHOUT_PLUGINS = """
import sys
sys.modules["experiments_manager.legacy"] = None
from experiments_manager import dialects
dialects.PLUGINS = ()
from experiments_manager.cli.main import run
from experiments_manager.settings import load_settings
settings = load_settings(sys.argv[1])
assert settings.epochs == 100 and settings.dialect is dialects.CANONICAL
assert run(["check", sys.argv[1]]) == 0
assert run(["--usersettings", sys.argv[1]]) == 2
print(*sorted(name for name in sys.modules if name.startswith("experiments_manager.legacy")))
"""


def test_a_file_is_of_the_form_of_which_it_gives_a_hook():
    [legacy] = plugins()
    assert dialect_of(["get_input_pipeline", "nbEpoch"].__contains__) is legacy
    assert dialect_of(["dataset", "nbEpoch"].__contains__) is CANONICAL


def test_all_that_a_plug_in_says_of_a_file_has_an_answer_for_canonical_files():
    [legacy] = plugins()
    said = {name for name in vars(type(legacy)) if not name.startswith("_")}
    assert said <= {name for name in vars(type(CANONICAL)) if not name.startswith("_")}


def test_canonical_files_are_loaded_and_checked_without_any_plug_in(tmp_path):
    file = tmp_path / "mysettings_curve.py"
    file.write_text(CANONICAL_FILE)
    done = subprocess.run([sys.executable, "-c", WITHOUT_PLUGINS, file], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "experiments_manager.legacy"
