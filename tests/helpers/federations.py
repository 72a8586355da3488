"""A grid without a network, and clients that answer what a test wants."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from experiments_manager.federated.strategies.catalogue import server_strategy
from experiments_manager.settings.options.federated import FederatedOptions

# Flower makes no message in a process that does not know which task it is.
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


class FakeGrid(Grid):
    """Knows nodes by their ids; `answer(message)` makes the reply to each message."""

    def __init__(self, node_ids, answer=None):
        self.node_ids = list(node_ids)
        self.answer = answer

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *args, **options):
        raise NotImplementedError

    def get_node_ids(self):
        return list(self.node_ids)

    def push_messages(self, messages):
        raise NotImplementedError

    def pull_messages(self, message_ids):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        replies = [self.answer(message) for message in messages]
        return [reply for reply in replies if reply is not None]


def strategy_of(setting, averaged=()):
    """Gives the strategy of a setting `federated`, in which all clients evaluate where it does not say."""
    return server_strategy(FederatedOptions.of({"fraction_evaluate": 1.0, **setting}), averaged)


def arrays_of(**values):
    """Gives a record of variables; keys are the names."""
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in values.items()})


def numpy_of(record):
    """Gives the variables of a record as NumPy arrays."""
    return {name: array.numpy() for name, array in record.items()}


def message_to(node_id, arrays, kind="train", **config):
    """Gives a message of the server."""
    record = RecordDict({"arrays": arrays, "config": ConfigRecord(config)})
    return Message(content=record, message_type=kind, dst_node_id=node_id)


def reply_to(message, proc_id, arrays=None, examples=1, **metrics):
    """Gives the reply of a client, as ours sends it."""
    records = {"metrics": MetricRecord({"num-examples": examples, "loss": 1.0, **metrics})}
    if arrays is not None:
        records["arrays"] = arrays if isinstance(arrays, ArrayRecord) else arrays_of(**arrays)
    if proc_id is not None:
        records["client"] = ConfigRecord({"proc-id": proc_id})
    return Message(content=RecordDict(records), reply_to=message)


def error_to(message, reason="it fell over"):
    """Gives a reply that says that a client failed."""
    return Message(Error(code=0, reason=reason), reply_to=message)


def one_round(strategy, server_round, arrays, grid, **config):
    """Lets clients train once; gives the global variables thereafter, and the metrics. Replies come in their order."""
    messages = strategy.configure_train(server_round, arrays, ConfigRecord(config), grid)
    replies = sorted(grid.send_and_receive(messages), key=lambda reply: reply.metadata.src_node_id)
    return strategy.aggregate_train(server_round, replies)
