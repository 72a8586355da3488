import pytest

from experiments_manager.settings import load_settings

HOOKS = """
def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch): pass
def get_learningRate(): return 0.1
def get_total_loss(model): return 'mse'
def model(usersettings): pass
"""
PLATEAU = ("reduce_lr_patience", "reduce_lr_factor", "reduce_lr_min_delta", "min_learning_rate")


def plateau(settings):
    return tuple(getattr(settings, name) for name in PLATEAU)


@pytest.mark.parametrize(("patience", "epochs"), [(10, 6), (5, 3), (1, 0), (100, 66)])
def test_a_legacy_file_lowers_the_learning_rate_after_two_thirds_of_the_patience(write, patience, epochs):
    settings = load_settings(write(f"early_stopping_patience = {patience}\n" + HOOKS, complete=False))
    assert plateau(settings) == (epochs, 0.1, 1e-4, 1e-6)
    assert not settings.is_given("reduce_lr_patience")


def test_it_can_be_turned_off_in_the_file_or_by_an_override(write):
    assert plateau(load_settings(write("reduce_lr_patience = None\n" + HOOKS, complete=False)))[0] is None
    assert plateau(load_settings(write(HOOKS, complete=False), ["reduce_lr_patience=None"]))[0] is None


def test_what_the_file_gives_of_it_counts(write):
    settings = load_settings(write("reduce_lr_factor = 0.2\nmin_learning_rate = 0.001\n" + HOOKS, complete=False))
    assert plateau(settings) == (6, 0.2, 1e-4, 0.001)


def test_without_early_stopping_there_is_none(write):
    assert plateau(load_settings(write("early_stopping_patience = None\n" + HOOKS, complete=False)))[0] is None


def test_canonical_files_have_none(write):
    assert plateau(load_settings(write("")))[0] is None
