import subprocess
import sys


def test_importing_the_room_imports_none_of_the_heavy_libraries():
    program = (
        "import sys, experiments_manager.runs\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'pandas', 'matplotlib', 'pydantic', 'typer', 'rich', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"
