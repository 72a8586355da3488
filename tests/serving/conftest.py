"""Saved models, made once for all tests of the server."""

import asyncio
import dataclasses
import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("serving_test_models", Path(__file__).with_name("models.py"))
makers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(makers)


@dataclasses.dataclass(frozen=True)
class SavedModels:
    """Folders of SavedModels; see `models.py`. Copy them with `publish`, do not change them."""

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


@pytest.fixture
def run_async():
    """Runs a coroutine function to its end, within half a minute."""

    def run(coroutine):
        return asyncio.run(asyncio.wait_for(coroutine, 30))

    return run
