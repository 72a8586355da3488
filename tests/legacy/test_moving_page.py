"""The page on moving a project has a row for every legacy name that the code knows, and none that says nothing."""

import re
from pathlib import Path

import pytest

import experiments_manager
from experiments_manager.legacy.attributes import NAMES as ATTRIBUTES
from experiments_manager.legacy.legacy_settings import LegacySettings
from experiments_manager.legacy.options import FEDERATED_OPTIONS, LEGACY_OPTIONS
from experiments_manager.settings.hooks import HOOKS_BY_OTHER_NAME
from experiments_manager.settings.overrides import ADDED_BY_LAUNCHERS
from experiments_manager.settings.schema import BY_OTHER_NAME

PAGE = (Path(__file__).parents[2] / "docs/from-deeplearningtools.md").read_text(encoding="utf-8")
STATES = ("works", "changed", "not there")
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and len(line.strip().strip("|").split("|")) == 4 and "---" not in line
]
"""The rows of the tables that say of each legacy name what it is today: name, today's, state, how."""


def names_in(cell):
    """The names that a cell is about, without their parameters."""
    return {text.partition("(")[0].strip("…") for text in re.findall(r"`([^`]+)`", cell)}


def rows_of(name):
    return [row for row in ROWS if name in names_in(row[0])]


LEGACY_FUNCTIONS = {"run", "loadExperimentsSettings", "get_commands", "get_default_args", *experiments_manager._GONE}
KNOWN = {
    "settings": set(BY_OTHER_NAME),
    "hooks": set(HOOKS_BY_OTHER_NAME),
    "options": {flag for option in LEGACY_OPTIONS for flag in option.flags},
    "options of a federation": {flag for option in FEDERATED_OPTIONS for flag in option.flags},
    "functions": LEGACY_FUNCTIONS,
    "keys of hparams": set(ADDED_BY_LAUNCHERS),
    "attributes": ATTRIBUTES,
    "methods": {name for name in vars(LegacySettings) if not name.startswith("_")} | {"has", "summary"},
}


@pytest.mark.parametrize("kind", KNOWN)
def test_every_legacy_name_that_the_code_knows_has_one_row(kind):
    assert {name: len(rows_of(name)) for name in KNOWN[kind]} == dict.fromkeys(KNOWN[kind], 1)


def test_settings_and_hooks_stand_beside_canonical_names():
    for legacy, entry in (BY_OTHER_NAME | HOOKS_BY_OTHER_NAME).items():
        [row] = rows_of(legacy)
        assert entry.name in names_in(row[1]), legacy


def test_options_stand_beside_canonical_form():
    for option in LEGACY_OPTIONS:
        [row] = rows_of(option.flags[0])
        assert names_in(row[0]) == set(option.flags)
        if option.canonical == "refused":
            assert row[2] == "not there"
        elif option.flags[0] != "-m":
            assert option.canonical in row[1]


def test_functions_that_are_gone_are_not_said_to_work():
    assert {rows_of(name)[0][2] for name in experiments_manager._GONE} == {"not there"}


def test_every_row_says_what_has_become_of_a_name_and_how():
    assert len(ROWS) > 100
    headings = [row for row in ROWS if row[2] == ""]
    assert all("`" not in row[0] for row in headings)
    for row in ROWS:
        if row in headings:
            continue
        assert row[2] in STATES, row
        assert row[2] == "works" or row[1] or row[3], row
