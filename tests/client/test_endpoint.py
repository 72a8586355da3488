"""What a run says of where its model is asked."""

from experiments_manager.client.endpoint import find_endpoint
from experiments_manager.runs import create_run
from experiments_manager.runs.serving_setup import ServingSetup, write_serving_setup


def test_brokers_and_their_options_are_the_runs_and_secrets_stay_names(tmp_path, monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", "hidden-text")
    (tmp_path / "mysettings.py").write_text("")
    run = create_run(tmp_path / "runs", "any")
    options = {"sasl.password": "${KAFKA_PASSWORD}"}
    settings = {"kafka_bootstrap_servers": ["broker:9092"], "kafka_options": options, "request_timeout": 7.0}
    run.start(settings_file=tmp_path / "mysettings.py", settings=settings)
    write_serving_setup(run.path, ServingSetup("localhost", 9000, 8501, "any"))
    found = find_endpoint(run.path)
    assert (found.kafka_servers, found.kafka_options) == (["broker:9092"], options)
    assert "KAFKA_PASSWORD" not in repr(found)
    assert set(found.client_options()) == {"address", "model", "timeout", "patience", "max_message_bytes"}
