"""Reading images, tables and other files into arrays and tf.data; splitting arrays among clients."""

from experiments_manager.data.images import read_image_table
from experiments_manager.data.splitting import client_indices, client_share, label_counts
from experiments_manager.data.tables import DataFileError, LabelTable, label_indices, read_label_table

__all__ = [
    "DataFileError",
    "LabelTable",
    "client_indices",
    "client_share",
    "label_counts",
    "label_indices",
    "read_image_table",
    "read_label_table",
]
