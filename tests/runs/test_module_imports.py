import logging
from pathlib import Path

import pytest

from experiments_manager.runs.snapshot import Import, imports_of


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b as x, c", [Import(("a", "b"), 0), Import(("c",), 0)]),
        ("from a import b", [Import(("a",), 0), Import(("a", "b"), 0)]),
        ("from a import *", [Import(("a",), 0)]),
        ("from . import b", [Import((), 1), Import(("b",), 1)]),
        ("from ..a import b", [Import(("a",), 2), Import(("a", "b"), 2)]),
        ("def f():\n    import a", [Import(("a",), 0)]),
        ("try:\n    import a\nexcept ImportError:\n    import b", [Import(("a",), 0), Import(("b",), 0)]),
        ("import importlib\nm = importlib.import_module('a.b')", [Import(("importlib",), 0), Import(("a", "b"), 0)]),
        ("m = import_module('.a', __package__)", [Import(("a",), 1)]),
        ("m = __import__('a')", [Import(("a",), 0)]),
        ("m = import_module(name)", []),
        ("import a\nimport a", [Import(("a",), 0)]),
        ("# -*- coding: latin-1 -*-\nimport a", [Import(("a",), 0)]),
    ],
)
def test_imports_are_read_from_the_source(source, expected):
    found = imports_of(source.encode(), Path("m.py"))
    assert set(found) == set(expected)
    assert len(found) == len(expected)


@pytest.mark.parametrize("source", ["import (", "\x00"])
def test_a_source_that_cannot_be_parsed_imports_nothing_and_is_reported(caplog, source):
    with caplog.at_level(logging.WARNING):
        assert imports_of(source.encode(), Path("m.py")) == []
    assert "m.py is kept as it is" in caplog.text
