"""Reading images, tables and other files into arrays and tf.data."""

from experiments_manager.data.images import read_image_table
from experiments_manager.data.tables import DataFileError, LabelTable, label_indices, read_label_table

__all__ = ["DataFileError", "LabelTable", "label_indices", "read_image_table", "read_label_table"]
