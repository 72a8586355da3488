"""Names of Flower that are not public, each with why it is needed.

Everything is imported when it is called: where `flwr` is not installed, this module can be imported all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict
    from flwr.supercore.run import Run

IN_PROCESS_RUN = 1
"""Number of the run, of the server's node and of its task in a process that talks to no SuperLink."""
_SUPERNODE = "SuperNode"


def identify_process() -> None:
    """Give this process the identity that Flower's `Message` asks for, unless Flower gave it one.

    Flower sets it in processes that it starts itself, and strategies make their messages by `Message(…)`; in a process
    of ours that fails without it. There is no public way to set it. If a release moves `TaskIdentity`: look for what
    `flwr/app/message/message.py` reads `run_id` from.
    """
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("run_id", "node_id", "task_id"):
        try:
            getattr(TaskIdentity, name)
        except RuntimeError:
            setattr(TaskIdentity, name, IN_PROCESS_RUN)


def take_identity(run: int, node: int, task: int) -> None:
    """Let this process make messages of a run, a node and a task of Flower's, whose process is another one."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, node, task


def task_of_process() -> int:
    """Return the task that Flower started this process for; its public `Context` tells run and node alone."""
    from flwr.supercore.task_identity import TaskIdentity

    return TaskIdentity.task_id


def in_process_run() -> Run:
    """Return what a grid of this process has to say of its run: Flower's `Grid` asks for it, and nobody reads it.

    The class has no public name. If a release moves it: `flwr/serverapp/grid/grid.py` imports it.
    """
    from flwr.supercore.run import Run

    return Run.create_empty(IN_PROCESS_RUN)


def records_to_bytes(content: RecordDict) -> bytes:
    """Return records in the format that Flower sends, which has no public name.

    If a release moves it: `flwr/superlink/grid/http_grid.py` turns messages into it.
    """
    from flwr.common.serde import recorddict_to_proto

    return recorddict_to_proto(content).SerializeToString()


def records_from_bytes(data: bytes) -> RecordDict:
    """Return the records of `records_to_bytes`."""
    from flwr.common.serde import recorddict_from_proto
    from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

    return recorddict_from_proto(RecordDictProto.FromString(data))


def message_to_bytes(message: Message) -> bytes:
    """Return a message with its metadata, and with its content or its error, as `records_to_bytes` does records."""
    from flwr.common.serde import message_to_proto

    return message_to_proto(message).SerializeToString()


def message_from_bytes(data: bytes) -> Message:
    """Return the message of `message_to_bytes`."""
    from flwr.common.serde import message_from_proto
    from flwr.proto.message_pb2 import Message as MessageProto

    return message_from_proto(MessageProto.FromString(data))


def deactivate_supernode(node_id: int, server: str, ca_certificate: Path, private_key: Path) -> None:
    """Tell a server that a SuperNode is gone, as the SuperNode itself does when it ends in order.

    Flower has no program for it. If a release moves any of it: `flwr/supernode/fleet_http_connection.py` does the
    same.

    Args:
        node_id: By which the server knows it.
        server: Its address, `host:port`.
        ca_certificate: What its certificate is signed with.
        private_key: Of the SuperNode.
    """
    from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key = load_ssh_private_key(private_key.read_bytes(), None)
    signing = [
        RuntimeVersionHttpInterceptor(component_name=_SUPERNODE),
        NodeAuthHttpInterceptor(key, key.public_key()),
    ]
    with FleetHttpClient.from_server_address(server, False, str(ca_certificate), interceptors=signing) as client:
        client.DeactivateNode(DeactivateNodeRequest(node_id=node_id))


def masked_vector(content: RecordDict) -> tuple[str, list[np.ndarray]]:
    """Return the stage that a client's answer in SecAgg+ is of by what is in it, and its masked arrays if it has any.

    Raises:
        ValueError: It is none.
    """
    from flwr.common import bytes_to_ndarray
    from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key

    told = content.config_records.get(RECORD_KEY_CONFIGS, {})
    kinds: dict[str, tuple[str, ...]] = {
        "keys": (Key.PUBLIC_KEY_1, Key.PUBLIC_KEY_2),
        "secrets": (Key.DESTINATION_LIST, Key.CIPHERTEXT_LIST),
        "vector": (Key.MASKED_PARAMETERS,),
        "shares": (Key.NODE_ID_LIST, Key.SHARE_LIST),
    }
    for kind, keys in kinds.items():
        if set(told) == set(keys):
            lengths = {len(told[key]) for key in keys}
            if kind in ("secrets", "shares") and len(lengths) != 1:
                raise ValueError(f"lists of {sorted(lengths)} entries")
            masked = [bytes_to_ndarray(part) for part in told[keys[0]]] if kind == "vector" else []
            return kind, masked
    raise ValueError(f"entries {', '.join(sorted(told)) or 'of no kind'}")


class SecureProtocol:
    """A client's side of SecAgg+ for one update, by Flower's `secaggplus_mod`.

    The mod is public, and takes what a client of the legacy API answers, whose records have no public constructor; what
    it keeps between the stages is a record of the `Context`. If a release moves any of it: the mod itself
    (`flwr/client/mod/secure_aggregation/secaggplus_mod.py`) imports the same.

    Args:
        node_id: This client's node.
        update: A vector, all of whose elements are in the clipping range.
        examples: By which it is weighted.
        expected: Ranges that the server must name.
        threshold: How many shares the server said that it needs.
    """

    def __init__(
        self, node_id: int, update: np.ndarray, examples: int, expected: Mapping[str, Any], threshold: int
    ) -> None:
        from flwr.app import Context, RecordDict

        self._node_id, self._update, self._examples = node_id, update, examples
        self._expected = {**expected, "threshold": threshold}
        self._context = Context(run_id=1, node_id=node_id, node_config={}, state=RecordDict(), run_config={})
        self.is_over = False
        """Whether the last stage was answered."""

    @staticmethod
    def is_stage(content: RecordDict) -> bool:
        """Return whether a message is one of the protocol."""
        from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS

        return RECORD_KEY_CONFIGS in content.config_records

    @staticmethod
    def begins(content: RecordDict) -> bool:
        """Return whether a message of the protocol is its first."""
        from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage

        return content.config_records[RECORD_KEY_CONFIGS].get(Key.STAGE) == Stage.SETUP

    def answer(self, content: RecordDict) -> RecordDict:
        """Answer a message of the protocol.

        Raises:
            ValueError: The server asks for what would uncover the update, or for another protocol.
        """
        from flwr.app import ConfigRecord, Message, RecordDict
        from flwr.client.mod import secaggplus_mod
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
        from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
        from flwr.compat.common.recorddict_compat import fitres_to_recorddict

        def trained(message: Message, _: Any) -> Message:
            result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self._update]), self._examples, {})
            return Message(fitres_to_recorddict(result, keep_input=False), reply_to=message)

        asked = content.config_records[RECORD_KEY_CONFIGS]
        stage = asked.get(Key.STAGE)
        if stage == Stage.SETUP:
            wanted = [self._expected[name] for name in ("clipping_range", "quantization_range", "modulus_range")]
            got = [asked.get(key) for key in (Key.CLIPPING_RANGE, Key.TARGET_RANGE, Key.MOD_RANGE)]
            if got != wanted or asked.get(Key.THRESHOLD) != self._expected["threshold"]:
                raise ValueError(f"the server names other ranges. Expected {wanted}, got {got}")
        if stage == Stage.UNMASK and set(asked[Key.ACTIVE_NODE_ID_LIST]) & set(asked[Key.DEAD_NODE_ID_LIST]):
            raise ValueError("the server asks for both secrets of a client, which would uncover its update")
        own = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(dict(asked))})  # the mod takes entries out of it
        reply = secaggplus_mod(Message(own, self._node_id, "train"), self._context, trained)
        self.is_over = stage == Stage.UNMASK
        return RecordDict({RECORD_KEY_CONFIGS: reply.content.config_records[RECORD_KEY_CONFIGS]})


def secure_sum(
    grid: Any,
    nodes: list[int],
    round: int,
    shares: int,
    threshold: int,
    max_weight: float,
    ranges: Mapping[str, Any],  # noqa: A002
) -> tuple[np.ndarray | None, set[int]]:
    """Return the mean of the clients' vectors, weighted by samples, by the stages of Flower's `SecAggPlusWorkflow`.

    The workflow is public, and takes a context, a strategy and a client manager of the legacy API, whose parts that it
    reads are given here. It expects that who published keys also shared secrets; who did not is taken out between the
    stages here. If a release breaks it: compare the attributes of `WorkflowState` that the stages read.

    Args:
        grid: With `send_and_receive`, which gives replies without errors alone.
        nodes: Who takes part.
        round: Of the server.
        shares: Into how many shares secrets are split.
        threshold: How many of them are needed.
        max_weight: The largest number of samples of a client.
        ranges: `clipping_range`, `quantization_range` and `modulus_range`.

    Returns:
        The mean and whose vectors are in it; no mean where too many were lost.
    """
    from types import SimpleNamespace

    from flwr.common import parameters_to_ndarrays
    from flwr.server.workflow import SecAggPlusWorkflow
    from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState

    found: list[np.ndarray] = []

    def aggregate_fit(_: int, results: Any, __: Any) -> tuple[None, dict[str, Any]]:
        found.extend(parameters_to_ndarrays(results[0][1].parameters))
        return None, {}

    def collected(messages: Any, timeout: float | None = None) -> list[Message]:
        replies = list(grid.send_and_receive(messages, timeout=timeout))
        for reply in replies:
            for name, record in _empty_fit_result().items():
                reply.content[name] = record
        return replies

    context = _workflow_context(nodes, round, aggregate_fit)
    workflow = SecAggPlusWorkflow(1.0, 1.0, max_weight=max_weight, **ranges)
    workflow.num_shares, workflow.reconstruction_threshold = shares, threshold
    state = WorkflowState()
    if not workflow.setup_stage(grid, context, state) or not workflow.share_keys_stage(grid, context, state):
        return None, set()
    state.sampled_node_ids = set(state.active_node_ids)
    state.nid_to_neighbours = {
        node: state.nid_to_neighbours[node] & state.active_node_ids for node in state.active_node_ids
    }
    if not workflow.collect_masked_vectors_stage(SimpleNamespace(send_and_receive=collected), context, state):
        return None, set()
    summed = set(state.active_node_ids)
    return (found[0], summed) if workflow.unmask_stage(grid, context, state) and found else (None, summed)


def _empty_fit_result() -> RecordDict:
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
    from flwr.compat.common.recorddict_compat import fitres_to_recorddict

    return fitres_to_recorddict(FitRes(Status(Code.OK, ""), ndarrays_to_parameters([]), 1, {}), keep_input=False)


def _workflow_context(nodes: list[int], round: int, aggregate_fit: Any) -> Any:  # noqa: A002
    """Return what the workflow reads of a context of the legacy API."""
    from types import SimpleNamespace

    from flwr.app import ArrayRecord, ConfigRecord, RecordDict
    from flwr.common import FitIns, ndarrays_to_parameters
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

    def configure_fit(*_: Any) -> list[Any]:
        empty = FitIns(ndarrays_to_parameters([]), {})
        return [(SimpleNamespace(node_id=node), empty) for node in nodes]

    records = {MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: round}), MAIN_PARAMS_RECORD: ArrayRecord()}
    return SimpleNamespace(
        state=RecordDict(records),
        strategy=SimpleNamespace(configure_fit=configure_fit, aggregate_fit=aggregate_fit),
        client_manager=SimpleNamespace(num_available=lambda: len(nodes)),
    )
