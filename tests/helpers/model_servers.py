"""Fixtures: saved models, made once for all tests of server and client, and servers that serve them."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from tests.helpers import classic_models as classic_makers
from tests.helpers import running_servers
from tests.helpers import saved_models as makers


@dataclasses.dataclass(frozen=True)
class SavedModels:
    """Folders of SavedModels; see `saved_models.py`. Copy them with `publish`, do not change them."""

    linear: Path
    """`y = 2 x + 1`."""
    steeper: Path
    """`y = 5 x + 1`, with the same graph."""
    words: Path
    mixed: Path
    examples: Path
    publish = staticmethod(makers.publish)
    as_strings = staticmethod(makers.as_strings)


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory, tensorflow):
    folder = tmp_path_factory.mktemp("saved_models")
    linear = makers.save_linear(folder / "linear")
    steeper = makers.save_linear(folder / "steeper", scale=5.0)
    (steeper / "saved_model.pb").write_bytes((linear / "saved_model.pb").read_bytes())
    return SavedModels(
        linear,
        steeper,
        makers.save_words(folder / "words"),
        makers.save_mixed(folder / "mixed"),
        makers.save_examples(folder / "examples"),
    )


@pytest.fixture(scope="session")
def classics(tmp_path_factory, tensorflow):
    """Folders of the SavedModels of `classics.py`, by name."""
    folder = tmp_path_factory.mktemp("classic_models")
    makers_by_name = {
        name.removeprefix("save_"): make for name, make in vars(classic_makers).items() if name.startswith("save_")
    }
    return {name: make(folder / name) for name, make in makers_by_name.items()}


@pytest.fixture
def run_async():
    """Runs a coroutine function to its end, within two minutes, however busy the machine is."""

    def run(coroutine):
        return asyncio.run(asyncio.wait_for(coroutine, 120))

    return run


@pytest.fixture(scope="session")
def running():
    """Starts whole servers by flags, in threads of this process; see `running_servers.py`."""
    return running_servers


@pytest.fixture(scope="session")
def model_server(saved_models, running, tmp_path_factory):
    """One server with all the little models, and a label, for many tests; none of them may change it."""
    folder = tmp_path_factory.mktemp("served")
    makers.publish(saved_models.linear, folder / "linear", 1)
    makers.publish(saved_models.steeper, folder / "linear", 2)
    for name in ("words", "mixed", "examples"):
        makers.publish(getattr(saved_models, name), folder / name, 1)
    models = [f'config {{ name: "{name}" base_path: "{folder / name}" }}' for name in ("words", "mixed", "examples")]
    models.append(
        f'config {{ name: "linear" base_path: "{folder / "linear"}" model_version_policy {{ all {{}} }} '
        'version_labels { key: "stable" value: 1 } }'
    )
    config = folder / "models.config"
    config.write_text("model_config_list { " + " ".join(models) + " }")
    with running.running_server([f"--model_config_file={config}", "--enable_batching"]) as server:
        yield server
