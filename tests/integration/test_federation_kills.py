"""A federation that is killed anywhere ends as one that nobody disturbed, whatever the number of workers.

`EXPERIMENTS_MANAGER_KILLS` says how often it is killed.
"""

import os
import random
from pathlib import Path

import pytest

from tools.bench import survival

pytestmark = [pytest.mark.slow]
SETTINGS = Path(__file__).parent / "federation" / "mysettings_averaged.py"
KILLS = int(os.environ.get("EXPERIMENTS_MANAGER_KILLS", "4"))


def test_every_tensor_and_every_row_is_that_of_an_undisturbed_federation(tmp_path):
    whole = survival.Case("federation", SETTINGS, verb=("federate", "simulate", "--workers", "1"))
    killed = survival.Case("federation", SETTINGS, verb=("federate", "simulate", "--workers", "2"))
    chance = random.Random(KILLS)
    reference = survival.train_undisturbed(whole, tmp_path / "whole")
    kills = survival.kill_until_finished(killed, tmp_path / "killed", KILLS, reference, chance)
    outcome = survival.outcome_of(tmp_path / "killed" / "federation")
    assert survival.differences(reference.outcome, outcome) == []
    assert kills.total() > 0
    tables = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.csv")]
    assert len(tables) == 6  # metrics.csv of the federation and of its four clients, and clients.csv
    for table in tables:
        assert (tmp_path / "killed" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes(), table
