"""What a client keeps of its last two rounds."""

import ml_dtypes
import numpy as np
import pytest

from experiments_manager.federated.client.kept_rounds import KeptRounds
from experiments_manager.federated.errors import FederationError


@pytest.fixture
def kept(tmp_path):
    """Rounds 1 to 4, each with its number."""
    kept = KeptRounds(tmp_path / "state")
    for number in (1, 2, 3, 4):
        kept.write(number, {"a": np.full(2, number, np.float32)})
    return kept


def test_what_was_kept_is_read_bit_for_bit_in_its_type(tmp_path):
    arrays = {
        "half": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "count": np.array(3, np.int64),
        "weight/with:a name": np.random.default_rng(0).normal(size=(2, 3)),
    }
    KeptRounds(tmp_path / "state").write(1, arrays)
    found = KeptRounds(tmp_path / "state").read(1)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_before_the_first_round_there_is_nothing(tmp_path):
    kept = KeptRounds(tmp_path / "state")
    assert (kept.last_before(1), kept.last_before(7), kept.read(0)) == (0, 0, {})


def test_two_rounds_are_kept_so_that_the_last_one_can_be_trained_again(kept, tmp_path):
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["round-000003.npz", "round-000004.npz"]
    assert (kept.last_before(5), kept.last_before(4), kept.last_before(9)) == (4, 3, 4)
    kept.write(4, {"a": np.zeros(2)})
    assert kept.last_before(4) == 3


def test_a_server_that_goes_back_further_is_refused(kept):
    with pytest.raises(FederationError, match=r"it is of round 3 and 4\. Expected that of a round before 3"):
        kept.last_before(3)


def test_a_federation_that_begins_anew_is_followed(kept, tmp_path):
    assert kept.last_before(1) == 0
    kept.write(1, {"a": np.ones(2)})
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["round-000001.npz"]


def test_a_damaged_file_is_named(kept, tmp_path):
    (tmp_path / "state" / "round-000004.npz").write_bytes(b"PK")
    with pytest.raises(FederationError, match=r"round-000004\.npz cannot be read"):
        kept.read(4)
