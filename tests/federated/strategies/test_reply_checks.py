"""Replies that cannot be aggregated are left out, named, and stop nobody."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments_manager.federated.strategies.reply_checks import Bounds, LeftOut, checked_replies
from tests.helpers.federations import arrays_of, error_to, message_to, reply_to

KERNEL = np.ones((2, 3), "float32")
SENT = arrays_of(kernel=KERNEL, steps=np.int64(4))


FIVE = np.int64(5)


def answer(node_id, proc_id, kernel=KERNEL * 2, steps=FIVE, **options):
    return reply_to(message_to(node_id, SENT), proc_id, {"kernel": kernel, "steps": steps}, **options)


def numbers(replies):
    return [reply.content["client"]["proc-id"] for reply in replies]


def reason_for(reply, **options):
    good, left_out = checked_replies([answer(1, 0), answer(2, 1), reply], SENT, **options)
    assert numbers(good) == [0, 1]
    assert len(left_out) == 1
    return left_out[0].reason


def test_good_replies_come_in_the_order_of_the_clients_numbers():
    good, left_out = checked_replies([answer(7, 2), answer(9, 0), answer(5, 1)], SENT)
    assert numbers(good) == [0, 1, 2]
    assert left_out == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_reply_with_numbers_that_are_not_finite_is_left_out(value):
    kernel = KERNEL.copy()
    kernel[1, 2] = value
    assert "'kernel' holds NaN or Inf in 1 of 6 elements" in reason_for(answer(3, 2, kernel))


def test_a_reply_of_another_shape_is_left_out_with_both_shapes():
    assert "'kernel' has shape (3, 2). Expected (2, 3)" in reason_for(answer(3, 2, KERNEL.T))


def test_a_reply_that_lies_about_a_shape_is_left_out():
    true = Array(KERNEL.T.copy())
    lie = ArrayRecord(
        {"kernel": Array("float32", (2, 3), true.stype, true.data), "steps": Array(np.asarray(np.int64(1)))}
    )
    assert "shape (3, 2). Expected (2, 3)" in reason_for(reply_to(message_to(3, SENT), 2, lie))


def test_a_reply_of_another_dtype_is_left_out():
    assert "dtype float64. Expected float32" in reason_for(answer(3, 2, KERNEL.astype("float64")))


def test_a_reply_with_other_variables_is_left_out_with_both_shapes():
    reason = reason_for(reply_to(message_to(3, SENT), 2, {"weight": KERNEL.T, "steps": np.int64(1)}))
    assert "lack 'kernel' and have 'weight' more" in reason
    assert "(2, 3)" in reason and "(3, 2)" in reason


def test_a_reply_without_variables_is_left_out():
    assert "Expected one record of variables, got 0" in reason_for(reply_to(message_to(3, SENT), 2))


@pytest.mark.parametrize("examples", [0, -3, float("nan"), float("inf"), [1, 2]])
def test_a_reply_needs_a_positive_number_of_samples(examples):
    assert "number of samples must be positive" in reason_for(answer(3, 2, examples=examples))


def test_a_reply_with_a_loss_that_is_not_finite_is_left_out():
    assert "Its loss is nan" in reason_for(answer(3, 2, loss=float("nan")))


def test_a_reply_with_other_metrics_than_most_is_left_out():
    assert "Expected loss, num-examples, got accuracy, loss, num-examples" in reason_for(answer(3, 2, accuracy=0.5))


def test_a_client_that_reports_an_error_is_left_out_under_the_number_it_was_known_by():
    good, left_out = checked_replies([answer(1, 0), error_to(message_to(3, SENT), "out of memory")], SENT, known={3: 8})
    assert numbers(good) == [0]
    assert left_out == [LeftOut(8, 3, "It reports an error (code 0): out of memory")]


def test_a_reply_that_does_not_tell_who_sent_it_is_left_out():
    assert "does not tell its number" in reason_for(answer(3, None))


def test_of_two_clients_with_one_number_the_second_is_left_out():
    assert "Another client answered as number 1 already" in reason_for(answer(3, 1))


def test_a_reply_that_cannot_be_decoded_is_left_out():
    broken = ArrayRecord({"kernel": Array("float32", (2, 3), "numpy.ndarray", b"nonsense"), "steps": SENT["steps"]})
    assert "cannot be read" in reason_for(reply_to(message_to(3, SENT), 2, broken))


def test_variables_in_another_order_are_put_into_the_order_that_was_sent():
    swapped = reply_to(message_to(3, SENT), 2, {"steps": np.int64(5), "kernel": KERNEL})
    good, _ = checked_replies([swapped], SENT)
    assert list(good[0].content["arrays"]) == ["kernel", "steps"]


def test_variables_that_did_not_change_are_refused_only_where_they_must():
    same = answer(3, 2, KERNEL)
    assert checked_replies([same], SENT)[1] == []
    assert "no update to clip" in reason_for(same, must_differ=True)


def test_replies_to_an_evaluation_need_no_variables():
    good, left_out = checked_replies([reply_to(message_to(1, SENT, "evaluate"), 4)])
    assert numbers(good) == [4]
    assert left_out == []


def test_a_client_that_tells_an_error_and_its_number_is_named():
    failed = answer(3, 2)
    failed.content["client"]["error"] = "The loss is NaN."
    good, left_out = checked_replies([answer(1, 0), failed], SENT)
    assert numbers(good) == [0]
    assert left_out == [LeftOut(2, 3, "It reports an error: The loss is NaN.")]


def nasty_metrics():
    number = st.one_of(st.integers(-(2**62), 2**62), st.floats())
    names = st.sampled_from(["num-examples", "loss", "accuracy", ""])
    return st.dictionaries(names, st.one_of(number, st.lists(st.floats(), max_size=3)), max_size=4)


@settings(max_examples=150, deadline=None)
@given(
    metrics=nasty_metrics(),
    name=st.sampled_from(["kernel", "steps", "other"]),
    dtype=st.sampled_from(["float32", "float64", "int64", "object", ""]),
    shape=st.lists(st.integers(-2, 4), max_size=3),
    kind=st.sampled_from(["numpy.ndarray", "pickle", ""]),
    data=st.binary(max_size=200),
    proc_id=st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=3), st.floats()),
)
def test_nothing_that_a_client_sends_stops_the_server(metrics, name, dtype, shape, kind, data, proc_id):
    records = {
        "arrays": ArrayRecord({"steps": SENT["steps"], name: Array(dtype, tuple(shape), kind, data)}),
        "metrics": MetricRecord(metrics),
        "client": ConfigRecord({} if proc_id is None else {"proc-id": proc_id}),
    }
    nasty = Message(content=RecordDict(records), reply_to=message_to(3, SENT))
    good, left_out = checked_replies([answer(1, 10), answer(2, 11), nasty], SENT)
    assert numbers(good) == [10, 11]
    assert len(left_out) == 1
    assert left_out[0].reason


@pytest.mark.parametrize("told", [1e308, 1e18, 0.5, -3, float("inf"), float("nan")])
def test_numbers_of_samples_that_nobody_has_are_left_out_with_the_client(told):
    reply = answer(3, 2)
    reply.content["metrics"] = MetricRecord({"num-examples": told, "loss": 1.0})
    good, left_out = checked_replies([answer(1, 0), answer(2, 1), reply], SENT)
    assert numbers(good) == [0, 1]
    assert [entry.proc_id for entry in left_out] == [2]
    assert "number of samples" in left_out[0].reason


def test_two_that_tell_the_same_huge_number_are_both_left_out():
    huge = [answer(node, proc_id, examples=1e308) for node, proc_id in ((1, 0), (2, 1))]
    good, left_out = checked_replies([*huge, answer(3, 2)], SENT)
    assert (numbers(good), [entry.proc_id for entry in left_out]) == ([2], [0, 1])


def test_a_client_that_tells_ten_times_more_in_each_round_is_stopped_by_what_the_others_tell():
    told, rounds = 10, 0
    while True:
        grown = [answer(node, node, examples=10) for node in (1, 2, 3)] + [answer(4, 0, examples=10 * told)]
        good, left_out = checked_replies(grown, SENT, bounds=Bounds(earlier={0: told, 1: 10, 2: 10, 3: 10}))
        if left_out:
            break
        told, rounds = 10 * told, rounds + 1
    assert (rounds, [entry.proc_id for entry in left_out], numbers(good)) == (4, [0], [1, 2, 3])
    assert "Expected at most 100000, 10000 times the median of the others" in left_out[0].reason


def test_numbers_of_samples_are_compared_with_earlier_rounds_and_with_what_the_settings_allow():
    grown = [answer(1, 0, examples=1001), answer(2, 1, examples=1000), answer(3, 2, examples=90_000)]
    good, left_out = checked_replies(grown, SENT, bounds=Bounds(earlier={0: 100.0, 1: 100.0}))
    assert numbers(good) == [1, 2], "client 2 is new, and has 90 times as many as the others"
    assert (
        "1001. Expected at most 1000, 10 times what it told before. Set federated['max_examples']" in left_out[0].reason
    )
    good, left_out = checked_replies(grown, SENT, bounds=Bounds(most=1001, earlier={0: 1.0}))
    assert numbers(good) == [0, 1]
    assert "Expected at most 1001 (federated['max_examples'])" in left_out[0].reason
