"""What batches look like on the server of a federation, which has no training data."""

import pytest

from experiments_manager.settings import UserCodeError
from experiments_manager.training.errors import DataError
from experiments_manager.training.setup import datasets
from experiments_manager.training.setup.datasets import data_like_training


@pytest.fixture
def data_where(monkeypatch):
    """A function that gives the data of a server whose hook returns these for the splits, or raises them."""

    def like(train, validation):
        def feed_for(settings, split):
            found = {"train": train, "validation": validation}[split]
            if isinstance(found, Exception):
                raise UserCodeError("dataset", "mysettings.py:3", found)
            return found

        monkeypatch.setattr(datasets, "feed_for", feed_for)
        return data_like_training(None)

    return like


@pytest.mark.parametrize("train", [None, FileNotFoundError("no file"), NotADirectoryError("no folder")])
def test_the_validation_data_stands_for_training_data_that_is_not_there(train, data_where):
    assert data_where(train, "validation data") == "validation data"


def test_training_data_is_taken_where_there_is_some(data_where):
    assert data_where("training data", ArithmeticError()) == "training data"


def test_another_error_of_the_hook_is_told(data_where):
    with pytest.raises(UserCodeError, match="ArithmeticError: wrong"):
        data_where(ArithmeticError("wrong"), "validation data")


@pytest.mark.parametrize(("missing", "says"), [(None, "returned None"), (FileNotFoundError("x.csv"), "x.csv")])
def test_without_any_data_there_is_one_error_that_says_what_to_return(missing, says, data_where):
    with pytest.raises(DataError, match="neither training nor validation data") as refused:
        data_where(missing, missing)
    assert says in str(refused.value)
