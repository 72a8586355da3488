"""Fruit by picture and measurements: named inputs, missing values, and two heads with a loss each.

experiments_manager train examples/multimodal/mysettings_fruit.py
experiments_manager train examples/multimodal/mysettings_fruit.py --set hparams.inputs=image
experiments_manager train examples/multimodal/mysettings_fruit.py --set train_data_dir=FOLDER

The net grades a fruit and tells how many days it will keep. It gets a picture, a row of measurements of which some were
not made, and the variety, each by its name; either of picture and table alone tells half of it.
"""

from pathlib import Path

from fruit import MISSING, VARIETIES, draw_fruit

from experiments_manager.data import read_record_images, read_records

session_name = "fruit"
model_file = "model_fruit.py"
hparams = {"inputs": "both", "filters": 16, "units": 64, "learning_rate": 0.002}  # inputs: both, image or table
columns = list(MISSING)
varieties = list(VARIETIES)
class_names = ["sound", "one fault", "two faults"]
train_data_dir = None  # a folder, see `read_folder`
validation_data_dir = test_data_dir = train_data_dir
train_size = 2000

epochs = 30
batch_size = 64
loss = {"grade": "sparse_categorical_crossentropy", "days": "mean_absolute_error"}
loss_weights = {"grade": 1.0, "days": 0.3}
metrics = {"grade": ["accuracy"], "days": ["mean_absolute_error"]}
learning_rate = hparams["learning_rate"]
allow_nan = True  # what was not measured; the model knows what to do with it


def dataset(split, data_dir):
    """Inputs and targets of a split, each a dictionary of arrays by name."""
    if data_dir:
        image, measurements, variety, grade, days = read_folder(data_dir, split)
    else:
        size = train_size if split == "train" else 500
        image, measurements, variety, grade, days = draw_fruit(size, ["train", "validation", "test"].index(split))
    inputs = {"image": image, "measurements": measurements, "variety": variety}
    used = {"image": ["image"], "table": ["measurements", "variety"]}.get(hparams["inputs"], inputs)
    return {name: inputs[name] for name in used}, {"grade": grade, "days": days}


def read_folder(data_dir, split):
    """Your own fruit: pictures beside a `fruit.csv`.

    Its columns are file, split, weight, firmness, sound, temperature, variety, grade and days; nothing stands where a
    measurement was not made, but each row needs its targets.
    """
    records = read_records(
        Path(data_dir) / "fruit.csv",
        split,
        numbers=[*columns, "days"],
        categories={"variety": varieties, "grade": class_names},
        required=["grade", "days"],
        file_column="file",
    )
    image = read_record_images(records, data_dir, size=(32, 32))
    variety, grade = records.categories["variety"], records.categories["grade"]
    return image, records.matrix(columns), variety, grade, records.numbers["days"]
