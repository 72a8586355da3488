"""Files as people write them, with the mistakes that people make: each is named at its line, and nothing else is.

In `mistakes.txt` each file begins with `=== NAME`. A comment `#! WORD` marks a line of which a problem must be told
whose message holds the word; `#!line=N WORD` says that it is told of line N; `#!!` that only data and model show it.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.settings import SettingsError, load_settings

ROOT = Path(__file__).parents[3]
PARTS = Path(__file__).with_name("mistakes.txt").read_text(encoding="utf-8").split("=== ")[1:]
FILES = dict(part.split("\n", 1) for part in PARTS)
LEAST_SHARE = 0.9
BESIDES = {("lr_alias", 1), ("kafka_options", 1)}
"""Where a second message follows from a mistake and is of use: what is missing under its right name."""


def marked(text):
    """The marks of a file: line, word and whether it shows in the source."""
    for number, line in enumerate(text.split("\n"), 1):
        found = re.search(r"#!(!?)(?:line=(\d+))? ?(.*)$", line)
        if found:
            yield int(found[2] or number), found[3].lower(), not found[1]


def problems_in(path):
    try:
        return list(map(str, load_settings(path).warnings))
    except SettingsError as error:
        return list(map(str, error.problems))


@pytest.fixture
def looked_through(tmp_path, monkeypatch):
    """For each file its name, its marks and the messages of it."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, text in FILES.items():
        path = tmp_path / f"mysettings_{name}.py"
        path.write_text(text)
        found[name] = list(marked(text)), problems_in(path)
    return found


def line_of(message):
    return int(re.match(r"[^:]+:(\d+)", message)[1])


def test_mistakes_are_named_at_their_lines_and_nothing_else_is(looked_through):
    missed, named, besides = [], 0, []
    for name, (marks, messages) in looked_through.items():
        for line, word, in_source in marks:
            hit = any(line_of(message) == line and word in message.lower() for message in messages)
            named += in_source and hit
            missed += [f"{name}:{line}: {word}"] if in_source and not hit else []
        lines = {line for line, _, _ in marks}
        besides += [m for m in messages if line_of(m) not in lines and (name, line_of(m)) not in BESIDES]
    assert besides == []
    assert named >= LEAST_SHARE * (named + len(missed)), missed


@pytest.mark.parametrize("folder", ["examples", "experiments_manager", "tests/legacy/examples"])
def test_of_good_files_nothing_is_said(folder):
    from experiments_manager.settings.loading import lint_source

    files = [path for path in (ROOT / folder).rglob("mysettings_*.py") if "{" not in path.name]
    assert files
    said = {path.name: [p for p in lint_source(path) if p.name not in ("train_data_dir",)] for path in files}
    assert not any(said.values()), said


def test_no_library_that_takes_seconds_is_imported_to_look_through_a_bad_file(tmp_path):
    path = tmp_path / "mysettings_case.py"
    path.write_text(FILES["names_as_strings"])
    code = (
        "import sys\nfrom experiments_manager.settings import SettingsError, load_settings\n"
        f"try:\n    load_settings({str(path)!r})\nexcept SettingsError as error:\n    print(len(error.problems))\n"
        "print(sorted({'keras', 'tensorflow', 'flwr'} & set(sys.modules)))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, heavy = ended.stdout.split("\n", 1)
    assert (int(count), heavy.strip()) == (7, "[]")
