"""`experiments_manager kafka produce`: what it accepts, sends and prints."""

import io
import json
import os
import signal
import subprocess
import sys

import pytest

from experiments_manager.cli import main
from experiments_manager.cli.commands.kafka.produce import SendingProgress
from experiments_manager.common.display.progress import ProgressDisplay
from experiments_manager.kafka.producing.production import Plan, ProductionProgress
from experiments_manager.kafka.topics import Topics
from tests.helpers.waiting import wait_until


@pytest.fixture
def produce(line_experiment, kafka_broker, topic):
    """Runs the command in the test's process; gives exit code and JSON."""

    def run(capfd, *arguments):
        session = ["--set", f"session_name={topic}", "--servers", kafka_broker, "--json"]
        code = main.run(["kafka", "produce", str(line_experiment), *session, *map(str, arguments)])
        captured = capfd.readouterr()  # the first --json of a process takes standard output away from those after it
        result = [line for line in (captured.err + captured.out).splitlines() if line.startswith("{")]
        assert result, captured.err
        return code, json.loads(result[0]), captured.err

    return run


@pytest.mark.slow
def test_both_splits_are_sent_each_to_its_topic(produce, kafka, topic, capfd):
    code, result, said = produce(capfd, "--partitions", 2, "--epochs", 3)
    assert (code, result["state"]) == (0, "finished")
    validation, train = result["topics"]
    assert (validation["topic"], validation["samples"]) == (f"{topic}.validation", 64)
    assert (train["topic"], train["samples"], train["records"]) == (f"{topic}.train", 192, 192)
    assert train["bytes"] == 192 * 16
    assert Topics(kafka).partitions(f"{topic}.train") == [0, 1]
    assert f"Sent to topic {topic}.train, 2 partitions: 192 samples in 192 records, 3.07 kB" in said


@pytest.mark.slow
def test_topic_and_number_of_the_process_can_be_given(produce, kafka, topic, capfd):
    _, result, _ = produce(capfd, "--proc-id", 3, "--split", "train", "--samples-per-record", 10)
    assert [(sent["topic"], sent["records"]) for sent in result["topics"]] == [(f"{topic}3.train", 7)]
    _, result, _ = produce(capfd, "--topic", f"{topic}-other")
    assert [(sent["topic"], sent["samples"]) for sent in result["topics"]] == [(f"{topic}-other", 64)]


@pytest.mark.slow
def test_what_was_sent_before_is_not_sent_again(produce, topic, capfd):
    produce(capfd, "--split", "train")
    _, result, said = produce(capfd, "--split", "train", "--resume", "--epochs", 2)
    assert (result["topics"][0]["records_before"], result["topics"][0]["samples"]) == (64, 64)
    assert f"64 records of producer {os.uname().nodename} are in topic {topic}.train already." in said


@pytest.mark.slow
def test_a_signal_stops_it_and_says_how_to_go_on(start_command, line_experiment, kafka, kafka_broker, topic):
    options = ["--topic", topic, "--rate", "100", "--epochs", "endless", "--servers", kafka_broker, "--json"]
    process = start_command("kafka", "produce", line_experiment, *options)
    wait_until(lambda: topic in Topics(kafka).names() and Topics(kafka).range_of(topic).offsets > 50)
    process.send_signal(signal.SIGTERM)
    output, said = process.communicate(timeout=60)
    assert process.returncode == 75
    result = json.loads(output)
    assert result["state"] == "interrupted"
    assert result["topics"][0]["records"] == Topics(kafka).range_of(topic).offsets
    assert said.rstrip().endswith("--json --resume")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epochs", "0"], "Invalid --epochs. Expected a number from 1 on or `endless`, got 0"),
        (["--rate", "0"], "Invalid --rate. Expected a number above 0"),
        (["--rate", "nan"], "Invalid --rate. Expected a number above 0"),
        (["--topic", "a", "--split", "both"], "--topic names one topic"),
    ],
)
def test_options_that_make_no_sense_are_refused(line_experiment, capsys, arguments, said):
    assert main.run(["kafka", "produce", str(line_experiment), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_broker_that_does_not_answer_is_named(line_experiment, capsys, free_port, monkeypatch):
    monkeypatch.setattr("experiments_manager.kafka.topics.REQUEST_SECONDS", 1.0)
    server = f"127.0.0.1:{free_port()}"
    assert main.run(["kafka", "produce", str(line_experiment), "--servers", server]) == 2
    said = capsys.readouterr().err
    assert f"No Kafka broker answers at {server}" in said
    assert "python3 tools/kafka_broker.py start" in said


def test_help_imports_neither_tensorflow_nor_the_client_of_kafka():
    code = (
        "import sys; from experiments_manager.cli.main import run; "
        "[run(['kafka', *verb, '--help']) for verb in ([], ['produce'], ['inspect'], ['demo'])]; "
        "sys.exit(', '.join({'tensorflow', 'keras', 'confluent_kafka', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(verb in done.stdout for verb in ("produce", "inspect", "demo"))


class Terminal(io.StringIO):
    def isatty(self):
        return True


SENT = ProductionProgress("t.train", 2, 1, 500, 480, 20, 100, 8_000, 2.0)


def test_a_terminal_sees_a_bar_with_rate_and_remaining_time(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr("experiments_manager.common.display.progress.REDRAW_SECONDS", 0)
    stream = Terminal()
    with SendingProgress(ProgressDisplay(stream), Plan("t.train"), 1000) as display:
        display.show(SENT)
    shown = stream.getvalue()
    assert "epoch 1/1  480 records acknowledged  250 samples/s  1.8 s left" in shown


def test_a_file_gets_lines_and_the_sum():
    stream = io.StringIO()
    with SendingProgress(ProgressDisplay(stream, line_seconds=0), Plan("t.train", epochs=None), None) as display:
        display.show(SENT)
        display.finish(SENT, False)
    line, last = stream.getvalue().splitlines()
    assert line == "t.train  epoch 1  480 records acknowledged  250 samples/s"
    assert last == (
        "Stopped; sent to topic t.train, 2 partitions: 500 samples in 480 records, 8 kB, 2.0 s, 250 samples/s"
    )
