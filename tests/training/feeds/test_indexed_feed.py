"""`keras.utils.PyDataset` as a feed."""

import keras
import numpy as np

from experiments_manager.training.feeds.factory import make_feed


class Numbers(keras.utils.PyDataset):
    """Batches that say of which epoch and index they are."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.batch_of_epoch(0, index)

    def batch_of_epoch(self, epoch, index):
        return np.full((2, 1), 10 * epoch + index, np.float32)


def test_one_that_knows_epochs_is_asked_for_the_batches_of_each():
    feed = make_feed(lambda number: Numbers(), split="train", batch_size=2, seed=0, shuffle=True)
    assert feed.kind == "indexed"
    epochs = [[int(batch.numpy()[0, 0]) for batch in feed.open(epoch)] for epoch in (0, 1, 2)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert [int(batch.numpy()[0, 0]) for batch in feed.open(2, step=1)] == epochs[2][1:], "any place can be begun at"
