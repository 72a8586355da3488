"""What a user is told who asked for a version that is not there; see also `test_client_with_server.py`."""

from __future__ import annotations

import types
from typing import Any

import pytest

from experiments_manager.client.client import is_not_found, with_versions
from experiments_manager.client.errors import ClientError
from experiments_manager.protocol.status import Code

AVAILABLE, LOADING, END = 30, 20, 50


def told(statuses: dict[int, int] | None, error: ClientError) -> str:
    def call_once(path: str, request: Any, response_class: Any) -> Any:
        if statuses is None:
            return None
        assert (path, request.model_spec.name) == ("/tensorflow.serving.ModelService/GetModelStatus", "digits")
        response = response_class()
        for version, state in statuses.items():
            response.model_version_status.add(version=version, state=state)
        return response

    found = with_versions(error, types.SimpleNamespace(call_once=call_once), "digits")
    assert found.code == error.code
    return str(found)


@pytest.mark.parametrize(
    ("statuses", "advice"),
    [
        ({5: AVAILABLE, 4: END, 3: AVAILABLE}, "Versions that answer: 3, 5."),
        ({2: LOADING, 1: END}, "No version of the model answers now: 1 is END, 2 is LOADING."),
        (dict.fromkeys(range(1, 23), AVAILABLE), f"Versions that answer: …, {', '.join(map(str, range(3, 23)))}."),
        (None, "Expected the name of a model that it serves (--model-name, `model`) and a version of it."),
    ],
)
def test_the_versions_that_there_are_follow_the_servers_words(statuses: Any, advice: str) -> None:
    error = ClientError("The model server answered NOT_FOUND: no version 9.", Code.NOT_FOUND)
    assert told(statuses, error) == f"The model server answered NOT_FOUND: no version 9. {advice}"


def test_only_what_is_not_there_is_asked_about() -> None:
    assert is_not_found(ClientError("Servable not found", Code.NOT_FOUND))
    assert is_not_found(ClientError("Unrecognized servable version label: new", Code.INVALID_ARGUMENT))
    assert not is_not_found(ClientError("Expected float32", Code.INVALID_ARGUMENT))
    assert not is_not_found(ClientError("It did not answer", Code.DEADLINE_EXCEEDED))
