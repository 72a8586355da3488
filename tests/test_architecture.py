"""The shape of the package: no circles between modules, no folder that is a drawer, a picture that is true."""

import graphlib
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "experiments_manager"
MOST_MODULES = 16
ONE_FILE_A_COMMAND = "experiments_manager/cli/commands"
MOST_LINES = 450


@pytest.fixture(scope="module")
def imports():
    """Gives each module with those that it imports, also inside of functions and for type checkers alone.

    The package's own `__init__`, which offers all verbs and is imported for where it lies, is left out.
    """
    graph = grimp.build_graph(PACKAGE)
    modules = graph.modules - {PACKAGE}
    return {module: graph.find_modules_directly_imported_by(module) - {PACKAGE} for module in modules}


def test_modules_do_not_import_each_other_in_circles(imports):
    sorter = graphlib.TopologicalSorter(imports)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
    assert len(imports) > 100


def test_no_folder_holds_more_modules_than_a_reader_can_keep_in_mind():
    folders = {file.parent for file in (ROOT / PACKAGE).rglob("*.py")}
    counts = {
        str(folder.relative_to(ROOT)): len([file for file in folder.glob("*.py") if file.name != "__init__.py"])
        for folder in folders
    }
    del counts[ONE_FILE_A_COMMAND]
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_no_module_is_longer_than_a_reader_takes_in():
    lengths = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in (ROOT / PACKAGE).rglob("*.py")}
    assert {file: length for file, length in lengths.items() if length > MOST_LINES} == {}


def test_every_room_says_in_one_line_what_it_holds():
    rooms = [
        folder
        for folder in (ROOT / PACKAGE).rglob("*")
        if list(folder.glob("*.py")) and folder.name not in ("starter", "gallery")
    ]
    silent = [room for room in rooms if not (room / "__init__.py").read_text(encoding="utf-8").startswith('"""')]
    assert silent == []


def test_the_picture_of_the_rooms_is_up_to_date():
    told = subprocess.run([sys.executable, "tools/draw_rooms.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr


def test_every_file_that_the_page_on_the_architecture_names_is_there():
    named = set(re.findall(r"`([\w/]+\.(?:py|html|cfg))`", (ROOT / "docs/architecture.md").read_text(encoding="utf-8")))
    found = [path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.cfg"), *(ROOT / PACKAGE).rglob("*.*"))]
    missing = [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in found)]
    missing = [name for name in missing if not (ROOT / name).is_file()]
    assert len(named) > 40
    assert missing == []
