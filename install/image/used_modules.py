"""Print the source files of all modules that a client and a small server use: only these are compiled for them."""

import contextlib
import importlib
import sys

_USED = (
    "experiments_manager.cli.main",
    "experiments_manager.cli.commands.predict",
    "experiments_manager.client",
    "experiments_manager.serving.server.flags",
    "experiments_manager.serving.server.server",
    "experiments_manager.serving.models.lite",
    "ai_edge_litert.interpreter",
    "uvloop",
    "numpy.random",
    "PIL.Image",
)

for name in _USED:
    with contextlib.suppress(ImportError):  # the client has nothing of the server
        importlib.import_module(name)
files = {module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", "")}
sys.stdout.write("\n".join(sorted(files)) + "\n")
