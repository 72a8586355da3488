"""A federation that is killed anywhere ends as one that nobody disturbed, whatever the number of workers.

`EXPERIMENTS_MANAGER_KILLS` says how often it is killed.
"""

import os
import random
from pathlib import Path

import pytest

from tests.helpers.survival import WarmTraining
from tools.bench import survival

pytestmark = [pytest.mark.slow]
SETTINGS = Path(__file__).parent / "federation" / "mysettings_averaged.py"
KILLS = int(os.environ.get("EXPERIMENTS_MANAGER_KILLS", "2"))


def test_every_tensor_and_every_row_is_that_of_an_undisturbed_federation(tmp_path):
    whole = survival.Case("federation", SETTINGS, verb=("federate", "simulate", "--workers", "1"))
    killed = survival.Case("federation", SETTINGS, verb=("federate", "simulate", "--workers", "2"))
    chance, kills = random.Random(KILLS), 0
    reference = survival.train_undisturbed(whole, tmp_path / "whole", WarmTraining)
    tables = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.csv")]
    assert len(tables) == 6  # metrics.csv of the federation and of its four clients, and clients.csv
    for number in range(KILLS + 5):  # a federation may end before the moment at which it was to be killed
        folder = tmp_path / f"killed{number}"
        most = KILLS - kills
        made = survival.kill_until_finished(killed, folder, most, reference, chance, kind=WarmTraining)
        kills += made.total()
        assert survival.differences(reference.outcome, survival.outcome_of(folder / "federation")) == []
        for table in tables:
            assert (folder / table).read_bytes() == (tmp_path / "whole" / table).read_bytes(), table
        if kills >= KILLS:
            break
    assert kills == KILLS
