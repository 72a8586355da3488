"""Clients that train a straight line in NumPy, in microseconds."""

import contextlib
import dataclasses

import numpy as np
from flwr.app import Error, Message

from experiments_manager.federated.client.client_answers import ClientAnswers
from experiments_manager.federated.client.private_answers import PrivateAnswers
from experiments_manager.federated.errors import client_problem
from experiments_manager.federated.simulation.local_grid import CLIENT_FAILED


@dataclasses.dataclass
class Result:
    weights: dict
    samples: int
    logs: dict
    steps: int = 1


class Line:
    """Fits a line to data of its own; `disturb` is called with the round and the result before that is given back."""

    def __init__(self, proc_id, disturb=lambda round, result: result):
        generator = np.random.default_rng(proc_id)
        self.x = generator.normal(size=(5 + proc_id, 2)).astype("float32")
        self.y = self.x @ np.array([1.0, -2.0], "float32") + proc_id
        self.disturb = disturb

    def train(self, client, weights, task):
        w, b = weights["w"], weights["b"]
        for _ in range(task.epochs):
            error = self.x @ w + b - self.y
            w = (w - 0.1 * self.x.T @ error / len(error)).astype("float32")
            b = (b - 0.1 * error.mean()).astype("float32")
        return self.disturb(task.round, Result({"w": w, "b": b}, len(self.y), {"loss": self._loss(w, b)}))

    def evaluate(self, client, weights):
        return Result({}, len(self.y), {"loss": self._loss(weights["w"], weights["b"])})

    def _loss(self, w, b):
        return float(np.square(self.x @ w + b - self.y).mean())


def line_client(proc_id, disturb=lambda round, result: result):
    trainer = Line(proc_id, disturb)
    return lambda message: reply_of(message, trainer, proc_id)


def reply_of(message, trainer, proc_id, privacy=None, secure=None):
    """What a client of a trainer replies; an error of one sentence where that fails."""
    answers = ClientAnswers(proc_id, privacy or PrivateAnswers(None, None), secure)
    try:
        content = answers.answer(
            message.metadata.message_type, message.content, lambda: contextlib.nullcontext((trainer, None))
        )
        return Message(content, reply_to=message)
    except Exception as error:
        return Message(Error(CLIENT_FAILED, client_problem(error)), reply_to=message)


def disturbed(proc_id, disturb):
    """Makes clients of which one does something to its results."""
    return lambda number: line_client(number, disturb) if number == proc_id else line_client(number)


def first_arrays():
    return {"w": np.array([0.5, 0.25], "float32"), "b": np.array(0.125, "float32")}


def bits(arrays):
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in arrays.items()}
