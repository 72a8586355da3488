"""Secure aggregation: the mean is that of open updates, the server sees none of these, and lost clients stop nobody."""

import threading

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Error, Message
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.serverapp.strategy import FedAdam, FedAvg

from experiments_manager.federated.client.secure_answers import SecureAnswers
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.federation_state import FederationState
from experiments_manager.federated.simulation.local_grid import LocalGrid
from experiments_manager.settings.options.secure_aggregation import SecureAggregation
from tests.federated.server.test_round_loop import run as run_rounds
from tests.helpers.line_clients import Line, bits, first_arrays, line_client, reply_of

CLIENTS = 5
OPTIONS = SecureAggregation()


def secure_client(number, seen=None, change=None, options=OPTIONS):
    """A client that masks; `seen` gets what it answers, and `change(stage, message, reply)` gives another answer."""
    trainer, secure = Line(number), SecureAnswers(options, seed=1)

    def reply(message):
        stage = message.content.config_records.get(RECORD_KEY_CONFIGS, {}).get(Key.STAGE, "train")
        answered = reply_of(message, trainer, number, secure=secure)
        if seen is not None:
            seen.append((number, stage, answered, list(answered.content.array_records)))
        return answered if change is None else change(stage, message, answered)

    return reply


def run(make_client, rounds=2, strategy=FedAvg, secure=OPTIONS, state=None, grid=None, **others):
    """Gives the state after the rounds, their reports, and the states before and between them."""
    secure = False if secure is None else secure.model_dump()
    grid = grid or LocalGrid(make_client, range(CLIENTS), workers=2)
    others = {"seed": 3, "min_clients": 3, "secure_aggregation": secure, **others}
    (*saved, after), reports = run_rounds(rounds, strategy=strategy, state=state, grid=grid, **others)
    return after, reports, saved


def assert_near(first, second, tolerance=1e-5):
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("strategy", [FedAvg, lambda: FedAdam(eta=0.05)])
def test_the_masked_mean_is_that_of_open_updates_and_goes_on_with_the_same_bits(strategy):
    opened, open_reports, _ = run(line_client, strategy=strategy, secure=None)
    masked, reports, saved = run(secure_client, strategy=strategy)
    assert_near(opened.arrays, masked.arrays)
    assert [dict(report.train) for report in reports] == [pytest.approx(dict(r.train), abs=1e-4) for r in open_reports]
    assert [report.participants for report in reports] == [tuple(range(CLIENTS))] * 2
    again, *_ = run(secure_client, strategy=strategy, state=saved[1])
    assert bits(again.arrays) == bits(masked.arrays)


def test_nothing_that_a_client_sends_is_its_update():
    seen = []
    run(lambda number: secure_client(number, seen), rounds=1)
    vectors = {}
    for number, stage, reply, arrays in seen:
        assert arrays == [], "weights never leave a client"
        if stage == Stage.COLLECT_MASKED_VECTORS:
            parts = reply.content.config_records[RECORD_KEY_CONFIGS][Key.MASKED_PARAMETERS]
            vectors[number] = bytes_to_ndarray(parts[1])
    assert sorted(vectors) == list(range(CLIENTS))
    spread = np.stack(list(vectors.values())).astype("float64") / OPTIONS.modulus_range
    assert spread.std() > 0.15, "masks are drawn from the whole range, not from near the update"


@pytest.mark.parametrize(
    "lost_at", ["train", Stage.SETUP, Stage.SHARE_KEYS, Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK]
)
def test_a_client_that_is_lost_at_any_stage_is_left_out_and_named(lost_at):
    def lost(stage, message, answered):
        return Message(Error(3, "it is gone"), reply_to=message) if stage == lost_at else answered

    after, (report,), _ = run(lambda number: secure_client(number, change=lost if number == 2 else None), rounds=1)
    counts = lost_at == Stage.UNMASK  # its update was in the sum already
    opened, *_ = run(
        lambda number: line_client(number) if number != 2 or counts else (lambda m: Message(Error(3, ""), reply_to=m)),
        rounds=1,
        secure=None,
    )
    assert_near(opened.arrays, after.arrays)
    assert report.participants == (tuple(range(CLIENTS)) if counts else (0, 1, 3, 4))
    assert [(entry.proc_id, "it is gone" in entry.reason) for entry in report.left_out] == [(2, True)]
    assert report.tries == 1


def test_one_that_answers_nonsense_is_named_and_the_round_goes_on_without_it():
    def nonsense(stage, message, answered):
        if stage == Stage.COLLECT_MASKED_VECTORS:
            answered.content[RECORD_KEY_CONFIGS] = ConfigRecord({Key.MASKED_PARAMETERS: [b"abc", b"def"]})
        return answered

    after, (report,), _ = run(lambda number: secure_client(number, change=nonsense if number == 4 else None), rounds=1)
    assert report.participants == (0, 1, 2, 3)
    assert [entry.proc_id for entry in report.left_out] == [4]
    assert all(np.isfinite(array).all() for array in after.arrays.values())


def test_too_few_that_stay_until_the_end_end_the_round_after_its_tries():
    def lost(stage, message, answered):
        return Message(Error(3, "it is gone"), reply_to=message) if stage == Stage.COLLECT_MASKED_VECTORS else answered

    with pytest.raises(FederationError, match=r"could not be done in 2 tries.*it is gone"):
        run(lambda number: secure_client(number, change=lost if number > 1 else None), rounds=1, tries=2)


def test_a_change_that_cannot_be_masked_is_told_with_the_name_of_the_weight():
    narrow = SecureAggregation(clipping_range=1e-6)
    with pytest.raises(
        FederationError, match=r"client 0: .*'w' changed by .* Expected at most 1e-06\. Set .*clipping_range"
    ):
        run(lambda number: secure_client(number, options=narrow), rounds=1, secure=narrow, tries=1)


def test_a_client_gives_both_secrets_of_another_to_nobody():
    """A server that takes a client for gone and for there could take all masks off its update."""
    refused = threading.Event()

    class Curious(LocalGrid):
        def push_messages(self, messages):
            messages = list(messages)
            for message in messages:
                asked = message.content.config_records.get(RECORD_KEY_CONFIGS, {})
                if asked.get(Key.STAGE) == Stage.UNMASK:
                    asked[Key.DEAD_NODE_ID_LIST] = list(asked[Key.ACTIVE_NODE_ID_LIST])[:1]
            return super().push_messages(messages)

    def watched(stage, message, answered):
        if stage == Stage.UNMASK and answered.has_error() and "both secrets" in answered.error.reason:
            refused.set()
        return answered

    grid = Curious(lambda number: secure_client(number, change=watched), range(CLIENTS), workers=2)
    with pytest.raises(FederationError, match="could not be done"):
        run(None, rounds=1, grid=grid, tries=1)
    assert refused.is_set()


def test_integers_become_the_nearest_one_and_shares_follow_the_number_of_clients():
    class Counting(Line):
        def train(self, client, weights, task):
            result = super().train(client, weights, task)
            result.weights["count"] = np.asarray(weights["count"] + self.x.shape[0])
            return result

    def client(number):
        trainer, secure = Counting(number), SecureAnswers(OPTIONS.model_copy(update={"clipping_range": 64.0}), 1)
        return lambda message: reply_of(message, trainer, number, secure=secure)

    wide = OPTIONS.model_copy(update={"clipping_range": 64.0})
    begin = FederationState(0, first_arrays() | {"count": np.array(2**40, "int64")})
    after, *_ = run(client, rounds=1, secure=wide, state=begin)
    sizes = np.arange(5, 5 + CLIENTS)
    assert int(after.arrays["count"]) - 2**40 == round(float(np.average(sizes, weights=sizes)))
    assert [OPTIONS.for_clients(clients) for clients in (3, 4, 5, 100)] == [(3, 2), (4, 3), (5, 3), (100, 67)]
    assert SecureAggregation(num_shares=4).for_clients(10) == (5, 3)
