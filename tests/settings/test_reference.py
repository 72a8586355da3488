from pathlib import Path

from experiments_manager.settings import reference
from experiments_manager.settings.hooks import HOOKS, PARAMETERS
from experiments_manager.settings.schema import SETTINGS

ROOT = Path(__file__).parents[2]


def test_the_reference_in_docs_is_up_to_date():
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == reference.markdown(), (
        "run: python -m experiments_manager.settings.reference > docs/settings.md"
    )


def test_every_name_is_in_both_renderings():
    for rendering in (reference.markdown(), reference.text()):
        for name in (*SETTINGS, *HOOKS, *PARAMETERS):
            assert name in rendering
        for entry in SETTINGS.values():
            assert entry.other_name is None or entry.other_name in rendering


def test_the_text_keeps_to_the_width_of_the_terminal():
    assert max(len(line) for line in reference.text(70).splitlines()) <= 70


def test_the_table_rows_have_all_their_cells():
    rows = [line for line in reference.markdown().splitlines() if line.startswith("| `epochs`")]
    assert rows[0] == "| `epochs` | int of 1 or more | `100` | Epochs that a run takes at most. | `nbEpoch` |"


def test_every_setting_says_what_it_is_in_a_sentence():
    for entry in SETTINGS.values():
        assert entry.doc[0].isupper()
        assert entry.doc.endswith(".")
        assert entry.group
