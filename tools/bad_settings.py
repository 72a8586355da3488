# ruff: noqa: E501
"""Write settings files with several mistakes each, run `check --dry-run` on them, and count which mistakes are named.

    python tools/bad_settings.py FOLDER [--files 48] [--seed 1]

Each file is one of a few sound experiments, in which two to five parts were replaced by ones with a mistake that people
make.
A mistake counts as named where one line of the output has all of its words.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_runner import FAULT, run_forked, warm_up


class Mistake(NamedTuple):
    """A part of a file with a mistake, and words of which a line that names it has all (regular expressions)."""

    part: str
    code: str
    words: tuple[str, ...]


ORDER = ("head", "plain", "loss", "metrics", "rate", "optimizer", "weights", "names", "data", "augment", "model",
         "callbacks", "logs", "serving", "client")  # fmt: skip

CLASSES = {
    "head": "import keras\nimport numpy as np\nimport tensorflow as tf\n",
    "plain": "epochs = 1\nbatch_size = 8\n",
    "loss": "loss = 'sparse_categorical_crossentropy'\n",
    "metrics": "metrics = ['accuracy']\n",
    "rate": "learning_rate = 0.01\n",
    "names": "class_names = ['a', 'b', 'c']\n",
    "data": (
        "def dataset(split):\n"
        "    random = np.random.default_rng(0)\n"
        "    return random.normal(size=(24, 4)).astype('float32'), np.arange(24) % 3\n"
    ),
    "model": (
        "def model():\n"
        "    x = keras.Input((4,), name='x')\n"
        "    return keras.Model(x, keras.layers.Dense(3, activation='softmax', name='y')(x))\n"
    ),
}
VALUES = CLASSES | {
    "loss": "loss = 'mse'\n",
    "metrics": "metrics = ['mae']\n",
    "names": "",
    "data": (
        "def dataset(split):\n"
        "    random = np.random.default_rng(0)\n"
        "    x = random.normal(size=(24, 4)).astype('float32')\n"
        "    return x, x.sum(axis=1, keepdims=True)\n"
    ),
    "model": (
        "def model():\n"
        "    x = keras.Input((4,), name='x')\n"
        "    return keras.Model(x, keras.layers.Dense(1, name='y')(x))\n"
    ),
}
IMAGES = CLASSES | {
    "data": (
        "def dataset(split):\n"
        "    x = np.random.default_rng(0).uniform(size=(24, 8, 8, 1)).astype('float32')\n"
        "    return x, np.arange(24) % 3\n"
    ),
    "model": (
        "def model():\n"
        "    x = keras.Input((8, 8, 1), name='x')\n"
        "    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))\n"
        "    return keras.Model(x, keras.layers.Dense(3, activation='softmax', name='y')(h))\n"
    ),
}
HEADS = CLASSES | {
    "loss": "loss = {'size': 'mse', 'kind': 'sparse_categorical_crossentropy'}\n",
    "metrics": "metrics = {'kind': ['accuracy']}\n",
    "names": "",
    "data": (
        "def dataset(split):\n"
        "    a = np.random.default_rng(0).normal(size=(24, 4)).astype('float32')\n"
        "    return {'a': a, 'b': a[:, :2]}, {'size': a[:, :1], 'kind': np.arange(24) % 3}\n"
    ),
    "model": (
        "def model():\n"
        "    a, b = keras.Input((4,), name='a'), keras.Input((2,), name='b')\n"
        "    h = keras.layers.Concatenate()([a, b])\n"
        "    size = keras.layers.Dense(1, name='size')(h)\n"
        "    kind = keras.layers.Dense(3, activation='softmax', name='kind')(h)\n"
        "    return keras.Model({'a': a, 'b': b}, {'size': size, 'kind': kind})\n"
    ),
}
BASES = {"classes": CLASSES, "values": VALUES, "images": IMAGES, "heads": HEADS}

_X = "x = np.random.default_rng(0).normal(size=(24, 4)).astype('float32')"


def _data(body: str) -> str:
    return "def dataset(split):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def _callback(hook: str, body: str, arguments: str) -> str:
    return (
        f"class Watch(keras.callbacks.Callback):\n    def {hook}(self, {arguments}):\n        {body}\n\n"
        "def callbacks():\n    return [Watch()]\n"
    )


EVERYWHERE = [
    Mistake("rate", "learning_rate = keras.optimizers.schedules.CosineDecay\n", ("learning_rate", "class|Expected")),
    Mistake("rate", "learning_rate = lambda: 'fast'\n", ("learning_rate", "fast")),
    Mistake("rate", "def learning_rate():\n    0.01\n", ("learning_rate", "None")),
    Mistake("rate", "learning_rate = float('nan')\n", ("learning_rate", "nan")),
    Mistake("rate", "def learning_rate(hparams):\n    return hparams['rate']\n", ("learning_rate", "KeyError|rate")),
    Mistake("rate", "def learning_rate():\n    return -0.1\n", ("learning_rate", "-0.1")),
    Mistake(
        "optimizer", "def optimizer(learning_rate):\n    keras.optimizers.SGD(learning_rate)\n", ("optimizer", "None")
    ),
    Mistake(
        "optimizer",
        "def optimizer(learning_rate):\n    return keras.optimizers.SGD(lr=learning_rate)\n",
        ("optimizer", "lr"),
    ),
    Mistake("optimizer", "optimizer = keras.optimizers.Adam\n", ("optimizer", "class|Expected")),
    Mistake("optimizer", "optimizer = 'adamm'\n", ("optimizer", "adamm")),
    Mistake("metrics", "metrics = ['acuracy']\n", ("metric", "acuracy")),
    Mistake("metrics", "metrics = [keras.metrics.MeanAbsoluteError]\n", ("metrics", "class")),
    Mistake(
        "metrics",
        "def bad_share(y_true, y_pred):\n    return y_pred['kind']\n\nmetrics = [bad_share]\n",
        (r"mysettings_\w+\.py:\d+", "metrics|bad_share"),
    ),
    Mistake(
        "metrics",
        "def nothing(y_true, y_pred):\n    tf.reduce_mean(tf.cast(y_true, tf.float32))\n\nmetrics = [nothing]\n",
        ("metrics", "None"),
    ),
    Mistake(
        "callbacks",
        _callback("on_epoch_end", "self.best = logs['val_acc']", "epoch, logs=None"),
        ("callbacks", "val_acc"),
    ),
    Mistake(
        "callbacks", _callback("on_train_begin", "self.history.append(1)", "logs=None"), ("callbacks", "history|append")
    ),
    Mistake(
        "callbacks",
        _callback("on_train_batch_end", "print(logs['loss'].numpy())", "batch, logs=None"),
        ("callbacks", "numpy"),
    ),
    Mistake("callbacks", "def callbacks():\n    return keras.callbacks.TerminateOnNaN()\n", ("callbacks", "list")),
    Mistake(
        "callbacks", "def callbacks():\n    return [keras.callbacks.EarlyStopping]\n", ("callbacks", "EarlyStopping")
    ),
    Mistake(
        "callbacks",
        "def callbacks():\n    return [keras.callbacks.EarlyStopping(monitor='val_acc')]\n",
        ("callbacks|EarlyStopping", "val_acc"),
    ),
    Mistake("callbacks", "callbacks = [lambda epoch: epoch]\n", ("callbacks", "function|Expected")),
    Mistake(
        "callbacks",
        "callbacks = [keras.callbacks.LearningRateScheduler(lambda e: 'low')]\n",
        ("callbacks", "float|schedule"),
    ),
    Mistake("plain", "epochs = 1\nbatch_size = 0\n", ("batch_size", "0")),
    Mistake("plain", "epochs = 'ten'\nbatch_size = 8\n", ("epochs", "ten")),
    Mistake("plain", "epochs = 1\nbatchsize = 8\n", ("batchsize", "batch_size")),
    Mistake("plain", "epochs = 1\nbatch_size = 8\nmonitor = 'val_accurcy'\n", ("monitor", "val_accurcy")),
    Mistake("plain", "epochs = 1\nbatch_size = 8\nembeddings = ['hidden']\n", ("embeddings", "hidden")),
    Mistake("plain", "epochs = 1\nbatch_size = 8\noutput_names = ['p', 'q', 'r']\n", ("output_names", "3")),
    Mistake("plain", "epochs = 1\nbatch_size = 8\ninput_names = ['p', 'q', 'r']\n", ("input_names", "3")),
    Mistake("weights", "loss_weights = {'nose': 2.0}\n", ("loss_weights", "nose|Expected")),
    Mistake("weights", "def loss_weights():\n    return [1.0, 2.0, 3.0]\n", ("loss_weights", "3|three")),
    Mistake(
        "logs",
        "def tensorboard_logs(model, logs):\n    tf.summary.scalar('a', logs['val_acc'])\n",
        ("tensorboard_logs", "val_acc"),
    ),
    Mistake(
        "logs",
        "def tensorboard_logs(model):\n    tf.summary.scalar('a', model.nothing)\n",
        ("tensorboard_logs", "nothing"),
    ),
    Mistake("serving", "def serving(model):\n    return model\n", ("serving", "Expected")),
    Mistake(
        "serving",
        "def serving(model):\n    @tf.function\n    def served_model(x):\n        return model(x)\n  "
        "  return served_model\n",
        ("serving", "signature"),
    ),
    Mistake(
        "client",
        "class client:\n    def __init__(self, options):\n        pass\n\n    def request(self):\n        yield {}\n",
        ("client", "requests"),
    ),
    Mistake("loss", "def loss():\n    keras.losses.MeanSquaredError()\n", ("loss", "None|no loss|there is none")),
    Mistake("loss", "def loss(y_true, y_pred):\n    tf.reduce_mean(y_pred)\n", ("loss", "None")),
    Mistake("loss", "loss = keras.losses.MeanSquaredError\n", ("loss", "class")),
    Mistake("loss", "loss = 'mean_sqared_error'\n", ("loss", "mean_sqared_error")),
    Mistake(
        "loss",
        "def loss(y_true, y_pred):\n    return tf.reduce_mean(tf.square(y_pred.foo))\n",
        (r"mysettings_\w+\.py:\d+", "foo"),
    ),
    Mistake("loss", "def loss():\n    return keras.losses.Hubber()\n", ("loss", "Hubber")),
    Mistake(
        "model",
        "def model():\n    x = keras.Input((4,))\n    keras.Model(x, keras.layers.Dense(3)(x))\n",
        ("model", "None"),
    ),
    Mistake(
        "model",
        "def model():\n    x = keras.Input((4,))\n    return keras.layers.Dense(3)(x)\n",
        ("model", "KerasTensor|Expected"),
    ),
    Mistake(
        "model",
        "def model():\n    x = keras.Input((4,))\n    return keras.Model(x, keras.layers.Dense('three')(x))\n",
        ("model", "three|units"),
    ),
    Mistake(
        "model",
        "def model(hparams):\n    x = keras.Input((4,))\n    return keras.Model(x, keras.layers.Dense(hparams['units'])(x))\n",
        ("model", "units"),
    ),
    Mistake("data", _data("return undefined_name"), ("dataset", "undefined_name")),
    Mistake("data", _data(f"{_X}\nx, x.sum(axis=1)"), ("dataset", "None|no training data")),
    Mistake("data", _data("raise OSError('share not mounted')"), ("dataset", "share not mounted")),
]
OF_CLASSES = [
    Mistake("weights", "class_weight = {'a': 1.0, 'b': 2.0}\n", ("class_weight", "'a'")),
    Mistake("weights", "def class_weight():\n    return [1.0, 2.0, 1.0]\n", ("class_weight", "list|dict")),
    Mistake("weights", "class_weight = {0: 'high', 1: 1.0}\n", ("class_weight", "high")),
    Mistake("names", "class_names = ['a', 'b', 'c', 'd']\n", ("class_names", "4")),
    Mistake("names", "class_names = ['a', 'b']\n", ("class_names", "2")),
    Mistake("data", _data(f"{_X}\nreturn x, np.arange(24) % 3 + 1"), ("dataset", "3", "0 to 2")),
    Mistake("data", _data(f"{_X}\nreturn x, np.arange(24) % 3 - 1"), ("dataset", "-1")),
    Mistake("data", _data(f"{_X}\nreturn x, np.array(['a', 'b', 'c'] * 8)"), ("dataset", "text|string", "'a'")),
    Mistake("data", _data(f"{_X}\nreturn x, np.eye(3)[np.arange(24) % 3]"), ("dataset", "one-hot")),
    Mistake("data", _data(f"{_X}\nreturn x[:, :3], np.arange(24) % 3"), ("dataset", r"\(4,\)", r"\(3,\)|3\)")),
    Mistake("data", _data(f"{_X}\nreturn x, np.arange(20) % 3"), ("dataset", "length", "20")),
    Mistake("data", _data(f"{_X}\nx = x[:, :3] if split == 'validation' else x\nreturn x, np.arange(24) % 3"), ("dataset", "validation")),
    Mistake("data", _data(f"{_X}\nx = x[:, :3] if split == 'test' else x\nreturn x, np.arange(24) % 3"), ("dataset", "test")),
    Mistake("data", _data(f"{_X}\nif split == 'test':\n    return x.nothing\nreturn x, np.arange(24) % 3"), ("dataset", "nothing")),
    Mistake("data", _data(f"{_X}\nreturn tf.data.Dataset.from_tensor_slices((x, np.arange(24) % 3))"), ("dataset", r"\.batch\(")),
    Mistake("data", _data(f"{_X}\nx[3, 1] = np.nan\nreturn x, np.arange(24) % 3"), ("dataset", "NaN", "3")),
    Mistake("data", _data("import pandas as pd\nx = pd.DataFrame({'age': [1.0] * 24, 'town': ['Bonn'] * 24, 'c': [1.0] * 24, 'd': 1.0})\nreturn x, np.arange(24) % 3"), ("dataset", "town", "Bonn")),
    Mistake("data", _data("return [[1.0] * (3 + i % 2) for i in range(24)], np.arange(24) % 3"), ("dataset", "length")),
    Mistake("data", _data("def give():\n    raise ValueError('row 7 is torn')\n    yield\nspec = tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32)\nreturn tf.data.Dataset.from_generator(give, output_signature=spec)"), ("dataset", "row 7 is torn")),
    Mistake("data", _data(f"{_X}\nreturn x, np.arange(24) % 3, np.ones(24), split"), ("dataset", "4 parts|tuple of 4")),
    Mistake("augment", "def augment(x, seed):\n    tf.random.stateless_normal([4], seed) + x\n", ("augment", "None")),
    Mistake("augment", "def augment(x, seed):\n    return x + tf.random.stateless_normal([7], seed)\n", ("augment|mysettings", "7")),
    Mistake("loss", "loss = 'categorical_crossentropy'\n", ("loss|dataset", "one-hot")),
    Mistake("loss", "def loss(y_true, y_pred):\n    return tf.reduce_mean(tf.math.log(y_pred - 2.0))\n", ("loss", "NaN")),
    Mistake("model", "def model():\n    x = keras.Input((5,))\n    return keras.Model(x, keras.layers.Dense(3, activation='softmax')(x))\n", ("dataset|model", r"\(5,\)", r"\(4,\)")),
]  # fmt: skip
OF_VALUES = [
    Mistake("data", _data(f"{_X}\nreturn x, np.stack([x.sum(1)] * 3, axis=1)"), ("dataset", r"\(3,\)", r"\(1,\)")),
    Mistake("data", _data(f"{_X}\nreturn x.astype(str), x.sum(axis=1)"), ("dataset", "text")),
    Mistake(
        "data",
        _data(f"{_X}\nx = x.astype(object)\nx[5, 2] = 'n/a'\nreturn x, x[:, 0].astype(float)"),
        ("dataset", "n/a", "5"),
    ),
    Mistake(
        "data", _data(f"{_X}\nreturn tf.data.Dataset.from_tensor_slices((x, x[:, :1]))"), ("dataset", r"\.batch\(")
    ),
    Mistake("data", _data(f"{_X}\nreturn x"), ("dataset", "y|targets")),
    Mistake("loss", "def loss(y_true, y_pred):\n    return tf.reduce_mean(tf.sqrt(y_pred - 1e9))\n", ("loss", "NaN")),
]
OF_IMAGES = [
    Mistake(
        "data",
        _data("x = np.zeros((24, 8, 8, 3), 'float32')\nreturn x, np.arange(24) % 3"),
        ("dataset", r"8, 8, 3", r"8, 8, 1"),
    ),
    Mistake(
        "data", _data("x = np.zeros((24, 64), 'float32')\nreturn x, np.arange(24) % 3"), ("dataset", "64", "8, 8, 1")
    ),
    Mistake(
        "data",
        _data(
            "x = [np.zeros((8 + i % 2, 8, 1)) for i in range(24)]\nreturn np.array(x, dtype=object), np.arange(24) % 3"
        ),
        ("dataset", r"9, 8, 1"),
    ),
    Mistake(
        "model",
        "def model():\n    x = keras.Input((8, 8, 1))\n    h = keras.layers.Conv2D(4, 12)(x)\n    return keras.Model(x, keras.layers.Dense(3)(h))\n",
        ("model", "negative|size|dimension|Kernel|kernel"),
    ),
    Mistake(
        "augment",
        "def augment(x, seed):\n    return tf.image.stateless_random_crop(x, [9, 9, 1], seed)\n",
        ("augment|mysettings", "9|crop|size"),
    ),
]
OF_HEADS = [
    Mistake(
        "data",
        _data(f"a = {_X[4:]}\nreturn {{'a': a, 'c': a[:, :2]}}, {{'size': a[:, :1], 'kind': np.arange(24) % 3}}"),
        ("dataset", "'b'"),
    ),
    Mistake(
        "data",
        _data(f"a = {_X[4:]}\nreturn {{'a': a, 'b': a}}, {{'size': a[:, :1], 'kind': np.arange(24) % 3}}"),
        ("dataset", "'b'", r"\(2,\)"),
    ),
    Mistake(
        "data",
        _data(f"a = {_X[4:]}\nreturn a, {{'size': a[:, :1], 'kind': np.arange(24) % 3}}"),
        ("dataset", "'b'|2 inputs|Expected 2"),
    ),
    Mistake(
        "data",
        _data(f"a = {_X[4:]}\nreturn {{'a': a, 'b': a[:, :2]}}, {{'size': a[:, :1], 'kind': np.arange(24) % 4}}"),
        ("dataset", "kind", "3"),
    ),
    Mistake("loss", "loss = {'size': 'mse', 'sort': 'sparse_categorical_crossentropy'}\n", ("loss", "sort")),
    Mistake("metrics", "metrics = {'sort': ['accuracy']}\n", ("metrics", "sort")),
    Mistake("weights", "loss_weights = {'size': 1.0, 'sort': 2.0}\n", ("loss_weights", "sort")),
]
MISTAKES = {
    "classes": [*EVERYWHERE, *OF_CLASSES],
    "values": [*EVERYWHERE, *OF_VALUES],
    "images": [*EVERYWHERE, *OF_IMAGES],
    "heads": [*(one for one in EVERYWHERE if one.part not in ("model",)), *OF_HEADS],
}


def _hidden(chosen: list[Mistake]) -> bool:
    """Return whether one mistake takes away what makes another one."""
    codes = {one.part: one.code for one in chosen}
    needs = ("one-hot" in str([one.words for one in chosen])) + ("0 to 2" in str([one.words for one in chosen]))
    return bool(needs) and ("loss" in codes or "model" in codes) and len({"loss", "model", "data"} & set(codes)) > 1


def bad_file(random_: random.Random, base: str) -> tuple[str, list[Mistake]]:
    """Return the source of a bad file, and what is wrong with it: one mistake in each of two to five parts."""
    by_part: dict[str, list[Mistake]] = {}
    for mistake in MISTAKES[base]:
        by_part.setdefault(mistake.part, []).append(mistake)
    while True:
        parts = random_.sample(sorted(by_part), random_.randint(2, 5))
        chosen = [random_.choice(by_part[part]) for part in parts]
        if not _hidden(chosen):
            break
    code = BASES[base] | {one.part: one.code for one in chosen}
    return "\n".join(code[part] for part in ORDER if code.get(part)), chosen


def named(mistake: Mistake, output: str) -> bool:
    """Return whether a line of the output names a mistake."""
    return any(all(re.search(word, line) for word in mistake.words) for line in output.splitlines())


def main() -> None:
    """Write the files, run the command on each, and print the share of mistakes that were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print the output of files with mistakes that were missed")
    given = parser.parse_args()
    warm_up()
    random_, total, found, faults, ends = random.Random(given.seed), 0, 0, 0, Counter()
    given.folder.mkdir(parents=True, exist_ok=True)
    for number in range(given.files):
        source, mistakes = bad_file(random_, list(BASES)[number % len(BASES)])
        file = given.folder / f"mysettings_bad{number:02}.py"
        file.write_text(source)
        code, output = run_forked(["check", file.name, "--dry-run"], given.folder)
        missed = [one for one in mistakes if not named(one, output)]
        total, found, faults = total + len(mistakes), found + len(mistakes) - len(missed), faults + (FAULT in output)
        ends[code] += 1
        for one in missed:
            print(f"{file.name}: missed {one.code.splitlines()[:5]!r} {one.words}", flush=True)
        if missed and given.show:
            print(output)
    share = f"{found / total:.1%}"
    print(f"{given.files} files, {total} mistakes, {found} named ({share}), {faults} faults, ends {dict(ends)}")


if __name__ == "__main__":
    main()
