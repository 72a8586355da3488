"""`experiments_manager kafka inspect`: what it prints and writes."""

import base64
import json
import re

import confluent_kafka
import numpy as np
import pytest
from typer.testing import CliRunner

from experiments_manager.cli.main import app, run
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import Topics

pytestmark = pytest.mark.slow

BATCH = ({"picture": np.full([3, 8, 8, 3], 200, np.uint8), "text": np.array([b"<b>"] * 3)}, np.arange(3))


@pytest.fixture
def filled(kafka, topic):
    producer = SampleProducer(kafka, topic, Structure.of(BATCH))
    producer.send(BATCH)
    producer.flush()
    return topic


def test_structure_offsets_and_samples_are_printed(filled, kafka_broker):
    printed = CliRunner().invoke(app, ["kafka", "inspect", filled, "--servers", kafka_broker]).output
    assert "x/picture (8, 8, 3) uint8, x/text () string, y () int64" in printed
    assert "offsets 0 to 3" in printed
    assert re.search(r"^1 .*'<b>' +1$", printed, re.MULTILINE)


def test_the_page_holds_the_pictures_and_escapes_texts(filled, kafka_broker, tmp_path):
    page = tmp_path / "topic.html"
    assert run(["kafka", "inspect", filled, "--servers", kafka_broker, "--html", str(page)]) == 0
    text = page.read_text()
    [*pictures] = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert [base64.b64decode(picture)[:4] for picture in pictures] == [b"\x89PNG"] * 3
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "http:" not in text
    assert "https:" not in text


def test_json_has_the_same_for_programs(filled, kafka_broker, run_command):
    done = run_command("kafka", "inspect", filled, "--servers", kafka_broker, "--json")
    found = json.loads(done.stdout)
    assert (found["records"], found["partitions"], found["problem"]) == (3, {"0": [0, 3]}, None)
    assert found["structure"][0] == {"name": "x/picture", "dtype": "uint8", "shape": [8, 8, 3]}


def test_records_without_a_structure_are_shown_raw(topic, kafka, kafka_broker):
    Topics(kafka).create(topic)
    writer = confluent_kafka.Producer(kafka.config())
    writer.produce(topic, bytes(range(40)))
    writer.flush()
    printed = CliRunner().invoke(app, ["kafka", "inspect", topic, "--servers", kafka_broker]).output
    assert "another program writes it" in printed
    assert "record 0: 40 bytes: 00 01 02" in printed


def test_a_missing_topic_is_bad_input(kafka_broker, capsys):
    assert run(["kafka", "inspect", "nowhere", "--servers", kafka_broker]) == 2
    assert "Topic nowhere not found" in capsys.readouterr().err
