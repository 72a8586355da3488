"""What to ask instead, where a model server does not have the model, version or label that it was asked for."""

from __future__ import annotations

from typing import Any

from experiments_manager.client.connection import STATUS, Connection
from experiments_manager.client.errors import ClientError
from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code

_LONGEST_LIST = 20
_LABEL = "version label"  # TensorFlow Serving: "Unrecognized servable version label: …"


def is_not_found(error: ClientError) -> bool:
    """Return whether the server has no such model, version or label."""
    return error.code == Code.NOT_FOUND or _is_about_label(error)


def with_versions(error: ClientError, connection: Connection, model: str) -> ClientError:
    """Add to an error which versions there are; for that, the server is asked once more.

    Args:
        error: One of which `is_not_found` is true.
        connection: To the server.
        model: Name of the model.
    """
    request = messages.GetModelStatusRequest()
    request.model_spec.name = model
    answer = connection.call_once(STATUS, request, messages.GetModelStatusResponse)
    if answer is None:  # it has no such model, or is gone
        advice = "Expected the name of a model that it serves (--model-name, `model`) and a version of it."
    else:
        advice = _versions_text(answer.model_version_status)
        if _is_about_label(error):
            advice = f"The model has no such label. {advice}"
    return ClientError(f"{str(error).rstrip('.')}. {advice}", error.code)


def _is_about_label(error: ClientError) -> bool:
    return error.code == Code.INVALID_ARGUMENT and _LABEL in str(error)


def _versions_text(statuses: Any) -> str:
    ordered = sorted(statuses, key=lambda status: status.version)
    there = [str(status.version) for status in ordered if status.state == messages.ModelVersionStatus.AVAILABLE]
    if there:
        more = "…, " if len(there) > _LONGEST_LIST else ""
        return f"Versions that answer: {more}{', '.join(there[-_LONGEST_LIST:])}."
    states = [f"{one.version} is {messages.ModelVersionStatus.State.Name(one.state)}" for one in ordered]
    return f"No version of the model answers now: {', '.join(states[-_LONGEST_LIST:])}."
