from pathlib import Path

from experiments_manager.settings.hooks import EARLIER_HOOKS
from experiments_manager.settings.schema import EARLIER_SETTINGS

PAGE = (Path(__file__).parents[2] / "docs/from-deeplearningtools.md").read_text(encoding="utf-8")


def test_the_page_on_moving_a_project_has_every_earlier_name_beside_todays():
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("| `")]
    pairs = [(cells[1].strip(" `…"), cells[2].strip(" `")) for cells in rows]
    for earlier, entry in (EARLIER_SETTINGS | EARLIER_HOOKS).items():
        todays = [today for written, today in pairs if written.partition("(")[0] == earlier]
        assert len(todays) == 1, earlier
        assert todays[0].partition("(")[0] == entry.name


def test_the_page_has_every_attribute_that_could_be_read_besides_the_settings():
    from experiments_manager.settings.legacy.attributes import NAMES, LegacyChecks

    methods = [name for name in vars(LegacyChecks) if not name.startswith("_")]
    assert [name for name in (*NAMES, *methods) if f"`{name}" not in PAGE] == []
