"""Reading images, tables and other files into arrays and tf.data; splitting arrays among clients."""

from experiments_manager.common.tables.problems import DataFileError
from experiments_manager.data.image_folders import LabelledImages, balanced_class_weights, read_image_folders
from experiments_manager.data.image_tables import read_image_table
from experiments_manager.data.label_tables import LabelTable, label_indices, read_label_table
from experiments_manager.data.records import Records, read_record_images, read_records
from experiments_manager.data.series import Series, fill_gaps, read_series, series_of
from experiments_manager.data.signals import read_signals
from experiments_manager.data.splitting import client_indices, client_share, label_counts
from experiments_manager.data.volumes import read_volumes
from experiments_manager.data.windows import Windows, make_windows, seasonal_naive

__all__ = [
    "DataFileError",
    "LabelTable",
    "LabelledImages",
    "Records",
    "Series",
    "Windows",
    "balanced_class_weights",
    "client_indices",
    "client_share",
    "fill_gaps",
    "label_counts",
    "label_indices",
    "make_windows",
    "read_image_folders",
    "read_image_table",
    "read_label_table",
    "read_record_images",
    "read_records",
    "read_series",
    "read_signals",
    "read_volumes",
    "seasonal_naive",
    "series_of",
]
