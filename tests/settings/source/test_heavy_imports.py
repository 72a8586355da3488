"""Imports of heavy packages are refused to one thread, for a while."""

import importlib
import sys
import threading

import pytest

from experiments_manager.settings.source import heavy_imports
from experiments_manager.settings.source.heavy_imports import NotImportedError, without_heavy_imports


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    """A package that counts as heavy and is not imported yet."""
    (tmp_path / "a_heavy_package.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(heavy_imports, "HEAVY", ("a_heavy_package",))
    yield "a_heavy_package"
    sys.modules.pop("a_heavy_package", None)


def test_a_heavy_package_is_refused_as_long_as_that_lasts(heavy):
    before = list(sys.meta_path)
    with without_heavy_imports(), pytest.raises(NotImportedError):
        importlib.import_module(heavy)
    assert sys.meta_path == before
    importlib.import_module(heavy)


def test_code_that_does_without_the_package_does_not_take_it_for_missing(heavy):
    with without_heavy_imports(), pytest.raises(NotImportedError):
        try:
            importlib.import_module(heavy)
        except Exception:
            pytest.fail("the refusal was caught")


def test_what_is_imported_already_stays_within_reach(heavy):
    module = importlib.import_module(heavy)
    with without_heavy_imports():
        assert importlib.import_module(heavy) is module


def test_other_threads_import_as_ever(heavy):
    imported = []
    with without_heavy_imports():
        thread = threading.Thread(target=lambda: imported.append(importlib.import_module(heavy)))
        thread.start()
        thread.join()
    assert len(imported) == 1
