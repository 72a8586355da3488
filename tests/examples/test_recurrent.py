"""Kinds of waves: sequences from end to end."""

import pytest

from tests.helpers.tried_examples import predicted, trained


@pytest.mark.slow
def test_it_is_trained_exported_served_and_asked(tmp_path):
    result = trained("recurrent/mysettings_sequences.py", tmp_path)
    kinds = predicted(result.run_dir, 4)["kind"]
    assert kinds.shape == (4, 3)
    assert kinds.sum(axis=1) == pytest.approx(1, rel=1e-5)
