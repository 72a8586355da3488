"""What is said while something is drawn."""

import pytest


@pytest.fixture
def warned(recwarn):
    """Gives the warnings so far; what other tests left open, the garbage collector tells of at any time."""
    return lambda: [warning for warning in recwarn.list if not issubclass(warning.category, ResourceWarning)]
