"""What a client of a federation is asked to train."""

from __future__ import annotations

import dataclasses


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
