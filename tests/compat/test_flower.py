"""Does Flower still have what it has no public name for? Each failure names the place to look at."""

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Message, RecordDict

from experiments_manager.compat.flower import (
    SecureProtocol,
    deactivate_supernode,
    identify_process,
    in_process_run,
    masked_vector,
    message_from_bytes,
    message_to_bytes,
    records_from_bytes,
    records_to_bytes,
    secure_sum,
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


def test_the_stages_of_secure_aggregation_come_to_the_weighted_mean(uses):
    """`secaggplus_mod`, `SecAggPlusWorkflow` and the records between them; see `SecureProtocol` and `secure_sum`."""
    ranges = {"clipping_range": 2.0, "quantization_range": 2**22, "modulus_range": 2**32}
    updates = {11: np.array([0.5, -1.0]), 12: np.array([0.25, 1.0]), 13: np.array([-0.125, 0.0])}
    kinds = []
    with uses("flower", "secaggplus_mod and SecAggPlusWorkflow"):
        identify_process()
        clients = {node: SecureProtocol(node, update, node, ranges, 2) for node, update in updates.items()}

        class Grid:
            @staticmethod
            def send_and_receive(messages, timeout=None):
                replies = []
                for message in messages:
                    assert SecureProtocol.is_stage(message.content)
                    answered = clients[message.metadata.dst_node_id].answer(message.content)
                    kinds.append(masked_vector(answered)[0])
                    message.content = records_from_bytes(records_to_bytes(message.content))
                    replies.append(Message(answered, reply_to=message))
                return replies

        mean, summed = secure_sum(Grid, list(updates), 1, 3, 2, 13.0, ranges)
        expected = np.average(list(updates.values()), axis=0, weights=list(updates))
        np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-5)
        assert summed == set(updates)
        assert list(dict.fromkeys(kinds)) == ["keys", "secrets", "vector", "shares"]
        assert all(client.is_over for client in clients.values())
