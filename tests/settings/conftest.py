"""Settings files for the tests of this folder."""

from tests.helpers.settings_files import tidy_modules, write

__all__ = ["tidy_modules", "write"]
