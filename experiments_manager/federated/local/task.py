"""What a client of a federation is asked to train, and what comes of it."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class LocalTask:
    """One round at a client.

    Attributes:
        round: Its number, counted from 1.
        epochs: How often the client goes through its data.
        proximal_mu: Weight of the term of FedProx.
        steps_before: Steps that the global model has behind it, by which a schedule of the learning rate goes.
        rate_scale: What the client's learning rate is multiplied with: the server lowers it on a plateau.
    """

    round: int
    epochs: int = 1
    proximal_mu: float = 0.0
    steps_before: int = 0
    rate_scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class LocalResult:
    """What came of local training, or of an evaluation.

    Attributes:
        weights: Of the model by name, without those that stay at the client; empty after an evaluation.
        samples: How many it trained on, or was evaluated on, each counted once.
        steps: How many steps it took.
        logs: Loss and metrics.
    """

    weights: dict[str, np.ndarray]
    samples: int
    steps: int
    logs: dict[str, float]
