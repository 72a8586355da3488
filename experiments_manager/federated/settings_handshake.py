"""What server and clients must agree on in their settings, besides the model, whose shapes are compared anyway."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from experiments_manager.federated.errors import FederationError
from experiments_manager.settings import Settings
from experiments_manager.settings.options.federated import FederatedOptions

TERMS = "settings"
"""The key of a message's `config` under which they stand, as JSON."""
_AGREED = ("random_seed", "batch_size", "loss", "optimizer", "learning_rate", "mixed_precision")
_PLAIN = (str, int, float, bool, type(None))
_OF_CLIENTS = ("hparams.procID", "hparams.cid")


def terms_of(settings: Settings) -> dict[str, str]:
    """Return what a message tells of the server's settings: plain values that decide on what clients train.

    Hooks cannot be compared and are left out, and so are texts in `hparams`, which may be paths of a machine.
    """
    return {TERMS: json.dumps(_terms(settings))}


def check_terms(config: Mapping[str, Any], settings: Settings) -> None:
    """Compare the settings of a client with those of the server.

    Args:
        config: Of a message.
        settings: The client's, loaded without its number, as the server loads them.

    Raises:
        FederationError: They differ; all differences are named.
    """
    ours, theirs = _terms(settings), json.loads(config.get(TERMS, "{}"))
    differing = [
        f"{name} (expected {theirs[name]!r} as on the server, got {ours[name]!r})"
        for name in theirs
        if name in ours and ours[name] != theirs[name]
    ]
    if differing:
        raise FederationError(
            f"Its settings differ from those of the server: {'; '.join(differing)}. Start server and clients with the "
            "same settings file and the same --set."
        )


def _terms(settings: Settings) -> dict[str, Any]:
    values = {name: getattr(settings, name) for name in _AGREED}
    values |= {f"hparams.{name}": value for name, value in settings.hparams.items() if not isinstance(value, str)}
    values["federated_local_layers"] = ", ".join(settings.federated_local_layers)
    options = FederatedOptions.of(settings.federated)
    values["federated.keep_optimizer"] = options.keep_optimizer
    values["federated.secure_aggregation"] = options.masks and options.masks.model_dump_json()
    return {name: value for name, value in values.items() if isinstance(value, _PLAIN) and name not in _OF_CLIENTS}
