"""What README and docs promise: links that lead somewhere, commands that exist, a first settings file that loads."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_scripts_that_are_named_exist(page):
    named = re.findall(r"(?:python3?|python -m) ((?:tools|examples)/[\w/.]+\.py)", page.read_text(encoding="utf-8"))
    assert [script for script in named if not (ROOT / script).is_file()] == []


def test_the_first_settings_file_of_the_readme_loads(tmp_path):
    source = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "mysettings_first.py"
    file.write_text(source.group(1))
    settings = load_settings(file, ["hparams.hidden_units=3", "epochs=2"])
    assert (settings.epochs, settings.hparams["hidden_units"], settings.has("dataset")) == (2, 3, True)


def test_every_command_in_the_readme_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| command | does |") : text.index("Every command has")]
    commands = set(re.findall(r"`(\w+)(?: [^`]*)?`(?:,| \|)", table))
    program = shutil.which("experiments_manager", path=str(Path(sys.executable).parent))
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    assert commands
    assert {command for command in commands if not re.search(rf"^  {command} ", shown, re.MULTILINE)} == set()
