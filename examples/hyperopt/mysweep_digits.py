"""The digits' convolutional net: many short trials, and the best of them trained on (ASHA).

experiments_manager sweep examples/hyperopt/mysweep_digits.py --parallel 2
"""

from math import log

from hyperopt import hp

settings_file = "../classification/mysettings_digits.py"
space = {
    "filters": hp.choice("filters", [8, 16, 32]),
    "dropout": hp.uniform("dropout", 0.0, 0.6),
    "learning_rate": hp.loguniform("learning_rate", log(3e-4), log(0.03)),
    "batch_size": hp.choice("batch_size", [32, 64, 128]),
}
objective = "val_loss"
max_trials = 27
prune = {"method": "asha", "min_epochs": 1, "reduction": 3}
overrides = {"model_file": "model_cnn.py", "epochs": 27, "early_stopping_patience": None}
