"""Does Flower still have what it has no public name for? Each failure names the place to look at."""

import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, RecordDict

from experiments_manager.compat.flower import (
    deactivate_supernode,
    identify_process,
    in_process_run,
    message_from_bytes,
    message_to_bytes,
    records_from_bytes,
    records_to_bytes,
    take_identity,
    task_of_process,
)


def test_messages_can_be_made_in_a_process_that_flower_did_not_start(uses):
    with uses("flower", "TaskIdentity"):
        identify_process()
        message = Message(RecordDict(), 7, "train")
        assert message.metadata.dst_node_id == 7


def test_an_identity_that_flower_gave_stays(uses, monkeypatch):
    with uses("flower", "TaskIdentity"):
        from flwr.supercore.task_identity import TaskIdentity

        monkeypatch.setattr(TaskIdentity, "_run_id", 42)
        identify_process()
        assert Message(RecordDict(), 7, "train").metadata.run_id == 42


def test_a_run_without_a_superlink_can_be_described(uses):
    with uses("flower", "Run.create_empty"):
        assert in_process_run().run_id == 1


def test_a_process_takes_the_identity_of_another_one(uses, monkeypatch):
    with uses("flower", "TaskIdentity"):
        from flwr.supercore.task_identity import TaskIdentity

        for name in ("_run_id", "_node_id", "_task_id"):
            monkeypatch.setattr(TaskIdentity, name, None)
        take_identity(run=3, node=4, task=5)
        assert task_of_process() == 5
        metadata = Message(RecordDict(), 7, "train").metadata
        assert (metadata.run_id, metadata.src_node_id) == (3, 4)


def test_records_and_messages_are_bytes_and_back(uses):
    records = RecordDict({"config": ConfigRecord({"number": 3, "text": "three"})})
    with uses("flower", "serde and its protocol buffers"):
        identify_process()
        assert records_from_bytes(records_to_bytes(records)) == records
        message = message_from_bytes(message_to_bytes(Message(records, 7, "train", group_id="1")))
        assert (message.metadata.dst_node_id, message.metadata.group_id) == (7, "1")
        assert message.content == records


def test_a_supernode_can_be_signed_off(uses, tmp_path, free_port):
    from experiments_manager.federated.deployment.certificates import make_certificates, make_key_pair

    authority = make_certificates(tmp_path / "tls", ["127.0.0.1"]).ca_certificate
    make_key_pair(tmp_path / "key")
    with uses("flower", "FleetHttpClient and its interceptors"):
        try:
            deactivate_supernode(1, f"127.0.0.1:{free_port()}", authority, tmp_path / "key")
        except Exception as error:
            refused = f"{type(error).__module__}.{type(error).__name__}: {error}"
            assert "onnect" in refused, refused  # nobody listens there; that it is tried shows that all of it is there
        else:
            raise AssertionError("it did not ask the server")
