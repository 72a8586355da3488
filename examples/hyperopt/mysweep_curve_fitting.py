"""Width and learning rate of the regression.

experiments_manager sweep examples/hyperopt/mysweep_curve_fitting.py --parallel 2
"""

from math import log

from hyperopt import hp

settings_file = "../regression/mysettings_curve_fitting.py"
space = {
    "hidden_units": hp.quniform("hidden_units", 4, 64, 1),
    "learning_rate": hp.loguniform("learning_rate", log(1e-3), log(1.0)),
}
algorithm = "tpe"
max_trials = 40
overrides = {"epochs": 10}
start_from = [{}]  # the values of the settings file, first
