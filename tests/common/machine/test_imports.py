import gc

import pytest

from experiments_manager.common.machine.imports import imported_for_good


def test_what_is_imported_is_looked_at_for_garbage_neither_meanwhile_nor_later():
    with imported_for_good():
        assert not gc.isenabled()
        made = [[]]
    assert gc.isenabled()
    assert not any(known is made for known in gc.get_objects())


@pytest.mark.parametrize("enabled", [True, False])
def test_an_import_that_fails_leaves_collections_as_they_were(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ImportError), imported_for_good():
            raise ImportError
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
