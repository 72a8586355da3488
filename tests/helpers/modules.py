"""Files that are no modules of a package, loaded as modules: tools, recipes, examples."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_file(path: str) -> ModuleType:
    """Load a file of the repository, named from its top."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
