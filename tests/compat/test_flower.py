"""Does Flower still have what it has no public name for? Each failure names the place to look at."""

import pytest

pytest.importorskip("flwr")

from flwr.app import Message, RecordDict

from experiments_manager.compat.flower import identify_process, in_process_run


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
