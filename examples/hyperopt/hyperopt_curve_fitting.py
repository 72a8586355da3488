"""A search that hyperopt itself drives: `experiments_manager.run` trains one trial, and gives what hyperopt wants.

python examples/hyperopt/hyperopt_curve_fitting.py
"""

from math import log
from pathlib import Path

import numpy as np
from hyperopt import STATUS_OK, Trials, fmin, hp, tpe

import experiments_manager

SETTINGS = Path(__file__).parents[1] / "regression" / "mysettings_curve_fitting.py"
SPACE = {
    "hidden_units": hp.uniformint("hidden_units", 4, 64),
    "learning_rate": hp.loguniform("learning_rate", log(1e-3), log(1.0)),
}


def train(hparams):
    """Train one trial in this process; `loss` and `status` are what hyperopt looks at."""
    result = experiments_manager.run(SETTINGS, hparams)
    return {**result, "status": STATUS_OK}


if __name__ == "__main__":
    trials = Trials()
    best = fmin(train, SPACE, tpe.suggest, max_evals=5, trials=trials, rstate=np.random.default_rng(0))
    print(best, trials.best_trial["result"]["sessionFolder"])
