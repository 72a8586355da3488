"""Produce, train, export, serve and predict at once, and draw how the served model learns a law that changes midway.

    python3 tools/kafka_broker.py start
    python examples/streaming/watch_drift.py [--servers localhost:9092] [--rate 1000] [--out drift]

Three processes run beside each other: one sends samples, one trains and serves what it has learnt so far, and this one
asks the served model and compares its answers with both laws. `drift/drift.png` and `drift/drift.csv` have the errors.
"""

import argparse
import csv
import importlib.util
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments_manager import Client
from experiments_manager.client.errors import ClientError
from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.topics import Topics

SETTINGS = Path(__file__).with_name("mysettings_drift.py")
COMMAND = [sys.executable, "-m", "experiments_manager"]
SECONDS_BETWEEN_QUESTIONS = 0.5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default="localhost:9092")
    parser.add_argument("--rate", type=float, default=1000, help="samples a second")
    parser.add_argument("--out", type=Path, default=Path("drift"))
    parser.add_argument("--set", action="append", default=[], help="change a setting of the example")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    topic, run = f"drift-{uuid.uuid4().hex[:8]}", given.out / "runs" / "online"
    changes = [f"--set={change}" for change in given.set]
    servers = f"kafka_bootstrap_servers={given.servers.split(',')}"
    topics = f"kafka_topics={{'train': '{topic}', 'validation': None}}"
    produce = ["kafka", "produce", SETTINGS, "--servers", given.servers, "--topic", topic, "--rate", given.rate]
    train = ["train", SETTINGS, "--set", servers, "--set", topics, "--serve", "--working-dir", run.parent]

    with (given.out / "produce.log").open("w") as log:
        producer = start([*produce, "--epochs", 1, *changes], log)
        started = time.monotonic()
    topics_of_broker = Topics(BrokerConnection(given.servers.split(",")))
    while topic not in topics_of_broker.names() and producer.poll() is None:
        time.sleep(0.1)
    with (given.out / "train.log").open("w") as log:
        trainer = start([*train, "--run-name", run.name, *changes], log)
    try:
        rows, ended = ask(run, trainer, producer, started)
    finally:
        for process in (producer, trainer):
            process.terminate()
            process.wait()
    change = ended - example().hparams["samples"] / 2 / given.rate
    if not rows or not rows[0][0] < change < rows[-1][0]:
        sys.exit(f"The model was not served before and after the change. See {given.out}/*.log, or lower --rate.")
    draw(rows, change, given.out)
    print(f"{given.out / 'drift.png'}: {summary(rows, change)}")


def start(arguments, log):
    """Starts a command of experiments_manager."""
    return subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=log, stderr=subprocess.STDOUT)


def example():
    """Gives the settings module."""
    spec = importlib.util.spec_from_file_location("mysettings_drift", SETTINGS)
    settings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(settings)
    return settings


def ask(run, trainer, producer, started):
    """Asks the served model until training ends; gives when, its version and its errors by both laws, and the end."""
    x = np.random.default_rng(1).normal(size=(500, 4)).astype("float32")
    laws = [example().law(x, np.full(len(x), changed)) for changed in (False, True)]
    rows, ended, client = [], None, None
    while trainer.poll() is None:
        time.sleep(SECONDS_BETWEEN_QUESTIONS)
        seconds = time.monotonic() - started
        if ended is None and producer.poll() is not None:
            ended = seconds
        if client is None and (run / "model_serving_setup.ini").exists():
            client = Client.for_run(run, patience=0.0)
        try:
            answer = client.predict({"x": x}) if client else None
        except ClientError:  # there is no version yet
            continue
        if answer is not None:
            errors = [float(np.mean((answer["y"] - law) ** 2)) for law in laws]
            rows.append((seconds, answer.version, *errors))
    return rows, ended or seconds


def draw(rows, change, folder):
    """Writes drift.csv and drift.png; the law of the stream changes at `change` seconds."""
    with (folder / "drift.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["seconds", "version", "error_by_first_law", "error_by_second_law"])
        table.writerows(rows)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    seconds, _, first, second = zip(*rows, strict=True)
    axes.plot(seconds, first, label="by the first law", color="#8c9bb0")
    axes.plot(seconds, second, label="by the second law", color="#1f5fa8")
    axes.axvline(change, color="black", linestyle=":", label="the law of the stream changes")
    axes.set(xlabel="seconds", ylabel="mean squared error of the served model", yscale="log")
    axes.legend()
    FigureCanvasAgg(figure).print_png(folder / "drift.png")


def summary(rows, change):
    """Says the error by the law in force just before and after the change, and at the end."""
    before = [first for seconds, _, first, _ in rows if seconds < change]
    after = [second for seconds, _, _, second in rows if seconds >= change]
    versions = len({version for _, version, *_ in rows})
    return (
        f"{versions} versions were served; the error by the law in force was {before[-1]:.3f} before the change, "
        f"{max(after):.3f} after it, and {after[-1]:.3f} at the end"
    )


if __name__ == "__main__":
    main()
