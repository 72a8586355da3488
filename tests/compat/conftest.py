"""How tests of the room `compat` fail: with a sentence that says where to look."""

import contextlib

import pytest


@pytest.fixture
def uses():
    """Gives a context for the use of a private name, whose absence or change fails the test in a clear sentence."""

    @contextlib.contextmanager
    def use(library, name, module=None):
        where = f"experiments_manager/compat/{module or library.lower()}.py"
        try:
            yield
        except Exception as error:
            pytest.fail(
                f"{library} moved or changed {name} ({type(error).__name__}: {error}); see {where} for what it is for "
                "and what to do."
            )

    return use
