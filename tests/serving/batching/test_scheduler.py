import asyncio
import threading
import time
from typing import Any, NamedTuple

import numpy as np
import pytest
from google.protobuf import text_format

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.batching import dispatcher
from experiments_manager.serving.batching.batch import LONG_SECONDS, BatchQueue, Task, merge
from experiments_manager.serving.batching.dispatcher import QUIET_SECONDS, QUIET_TURNS, RequestQueue
from experiments_manager.serving.batching.options import BatchingOptions, Proof
from experiments_manager.serving.batching.scheduler import Scheduler
from experiments_manager.serving.models.signatures import PredictRequest, Signature, TensorSpec

FLOAT = np.dtype(np.float32)
X = TensorSpec("x:0", "float", FLOAT, (None, None), 1)
SIGNATURE = Signature("serving_default", "", {"x": X}, {"y": X})


class Doubling:
    """`y = 2 x`; notes the size of each batch, fails where an x is negative, and can be held up."""

    signatures = {"serving_default": SIGNATURE}

    def __init__(self):
        self.batches = []
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Semaphore(0)

    def run(self, signature, inputs, outputs):
        x = inputs["x"]
        self.batches.append(x.shape)
        self.begun.release()
        assert self.free.wait(10)
        if (x < 0).any():
            raise ServingError(Code.INVALID_ARGUMENT, "negative")
        return {"y": 2 * x}


def rows(*values, width=1):
    return np.repeat(np.array(values, np.float32)[:, None], width, axis=1)


class FakeLease(NamedTuple):
    """All that the scheduler wants of a lease."""

    name: str
    model: Any


def request_for(model, x, name="model"):
    return FakeLease(name, model), PredictRequest(SIGNATURE, {"x": x}, ("y",))


async def answered(scheduler, read, write=None, *, alone=False):
    """Does what the servers do with a request."""
    turn = await scheduler.turn(alone)
    lease, request = read()
    outputs = await scheduler.predict(lease, request, turn)
    return write(outputs) if write else outputs


@pytest.fixture
def calls_are_short(monkeypatch):
    """Every call that was measured counts as short, however slow the machine is; no other one does."""
    monkeypatch.setattr(dispatcher, "SHORT_SECONDS", 3600.0)


@pytest.fixture
def batched(run_async):
    """Calls a coroutine function with a function that asks for outputs, a model, and the scheduler."""

    def run(steps, options=None, **arguments):
        async def go():
            model = Doubling()
            scheduler = Scheduler(options or BatchingOptions(num_batch_threads=1), **arguments)

            def ask(x, **more):
                return asyncio.ensure_future(answered(scheduler, lambda: request_for(model, x), **more))

            try:
                return await steps(ask, model)
            finally:
                model.free.set()
                scheduler.close()

        return run_async(go())

    return run


async def held(ask, model, x):
    """Asks for something that keeps the model busy until `model.free` is set."""
    model.free.clear()
    future = ask(x)
    assert await asyncio.get_running_loop().run_in_executor(None, model.begun.acquire, True, 10)
    return future


async def turns():
    """Turns the loop until what has arrived was looked at."""
    end = time.perf_counter() + 10 * QUIET_SECONDS
    while time.perf_counter() < end:
        await asyncio.sleep(0)
    for _ in range(2 * QUIET_TURNS):  # whatever time the turns before have taken
        await asyncio.sleep(0)


def test_a_request_that_is_alone_leaves_at_once(batched):
    async def steps(ask, model):
        return (await ask(rows(1, 2), alone=True))["y"], model.batches

    y, batches = batched(steps, BatchingOptions(batch_timeout_micros=60_000_000))
    assert y.tolist() == [[2], [4]]
    assert batches == [(2, 1)]


def test_requests_that_arrive_while_the_model_is_busy_leave_together(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        others = [ask(rows(2)), ask(rows(3, 4)), ask(rows(5))]
        await turns()
        model.free.set()
        return [(await future)["y"].ravel().tolist() for future in (first, *others)], model.batches

    answers, batches = batched(steps)
    assert answers == [[2], [4], [6, 8], [10]]
    assert batches == [(1, 1), (4, 1)]


def test_requests_are_read_in_a_row_and_answered_in_a_row(run_async):
    async def go():
        model, scheduler = Doubling(), Scheduler(BatchingOptions(num_batch_threads=1))
        told = []

        def ask(n):
            def call():
                told.append(f"read {n}")
                if n == 2:
                    raise ServingError(Code.NOT_FOUND, "no such model")
                return request_for(model, rows(n))

            def reply(outputs):
                told.append(f"write {n}")
                if n == 3:
                    raise ServingError(Code.INTERNAL, "cannot be written")
                return outputs["y"].item()

            return answered(scheduler, call, reply)

        answers = await asyncio.gather(*[ask(n) for n in range(1, 5)], return_exceptions=True)
        scheduler.close()
        return told, [getattr(answer, "message", answer) for answer in answers], model.batches

    told, answers, batches = run_async(go())
    assert told == ["read 1", "read 2", "read 3", "read 4", "write 1", "write 3", "write 4"]
    assert answers == [2, "no such model", "cannot be written", 8]
    assert batches == [(3, 1)]


@pytest.mark.parametrize("kind", [KeyError, StopIteration, asyncio.CancelledError])
def test_an_error_of_any_kind_costs_no_other_request_its_answer(run_async, kind):
    class Odd(Doubling):
        def run(self, signature, inputs, outputs):
            if (inputs["x"] == 1).any():
                raise kind("odd")
            return super().run(signature, inputs, outputs)

    async def go():
        model, scheduler = Odd(), Scheduler(BatchingOptions(num_batch_threads=1))
        requests = [answered(scheduler, lambda n=n: request_for(model, rows(n))) for n in range(3)]
        answers = await asyncio.wait_for(asyncio.gather(*requests, return_exceptions=True), 10)
        scheduler.close()
        return answers

    before, error, after = run_async(go())
    assert (before["y"].item(), after["y"].item()) == (0, 4)
    assert (error.code, error.message.split(":")[0]) == (Code.INTERNAL, kind.__name__)


def test_requests_that_keep_coming_do_not_keep_those_before_them_waiting(run_async):
    async def go():
        loop, turns = asyncio.get_running_loop(), []
        request_queue = RequestQueue(lambda: request_queue.end(), lambda: 0, most=10**6, wait_for_calls=False)

        def come():  # at each turn of the loop, so that it is never quiet
            turns.append(request_queue.wait())
            if not turns[0].done():
                loop.call_soon(come)

        come()
        await asyncio.wait_for(turns[0], 5)
        return turns[1].done()

    assert run_async(go())


def test_a_loop_that_was_busy_does_not_tear_requests_apart(batched, monkeypatch):
    monkeypatch.setattr(dispatcher, "LONGEST_SECONDS", 3600.0)  # it is not this limit that hands them over

    async def steps(ask, model):
        loop = asyncio.get_running_loop()
        first = ask(rows(1))
        for _ in range(3):
            await asyncio.sleep(0)
        loop.call_soon(time.sleep, 10 * QUIET_SECONDS)
        await asyncio.sleep(0)
        await asyncio.gather(first, ask(rows(2)))
        return model.batches

    assert batched(steps) == [(2, 1)]


def test_requests_wait_unread_for_the_end_of_a_call_only_if_calls_are_known_to_be_short(
    run_async, calls_are_short, monkeypatch
):
    monkeypatch.setattr(
        dispatcher, "PATIENCE_SECONDS", 3600.0
    )  # so that nothing but the call's end can end the waiting

    async def go():
        model, scheduler = Doubling(), Scheduler(BatchingOptions(num_batch_threads=4))
        read = []

        def ask(n):
            return asyncio.ensure_future(answered(scheduler, lambda: read.append(n) or call(n)))

        def call(n):
            return request_for(model, rows(n))

        seen = []
        for n in (10, 20):
            first = await held(ask, model, n)
            others = [ask(n + 1), ask(n + 2)]
            await turns()
            seen.append(list(read))
            model.free.set()
            await asyncio.gather(first, *others)
            await ask(n + 3)  # shows that calls are short
            while model.begun.acquire(blocking=False):
                pass
        scheduler.close()
        return seen, model.batches

    seen, batches = run_async(go())
    assert seen == [[10, 11, 12], [10, 11, 12, 13, 20]]
    assert batches == [(1, 1), (2, 1), (1, 1)] * 2


def test_a_call_that_takes_longer_than_it_should_does_not_keep_other_requests_from_being_read(
    run_async, calls_are_short
):
    async def go():
        model, other, scheduler = Doubling(), Doubling(), Scheduler(BatchingOptions(num_batch_threads=2))

        def ask(n, model=model):
            return asyncio.ensure_future(answered(scheduler, lambda: request_for(model, rows(n))))

        await ask(0)  # shows that calls are short
        assert model.begun.acquire(blocking=False)
        another = ask(1)  # one alone would be run on the loop
        first = await held(ask, model, 1)
        answer = await asyncio.wait_for(ask(2, other), 10)
        model.free.set()
        await asyncio.gather(first, another)
        scheduler.close()
        return answer["y"].item()

    assert run_async(go()) == 4


@pytest.mark.parametrize("new_version", [False, True])
@pytest.mark.parametrize("options", [None, BatchingOptions(num_batch_threads=1)])
def test_a_quick_model_does_not_stand_behind_a_slow_one(run_async, calls_are_short, options, new_version):
    async def go():
        models, scheduler = {"quick": Doubling(), "slow": Doubling()}, Scheduler(options, threads=1)

        def ask(n, name="quick"):
            request = request_for(models[name], rows(n), name)
            return asyncio.ensure_future(answered(scheduler, lambda: request))

        await ask(0)  # shows that calls are short
        held_up = await held(lambda n: ask(n, "slow"), models["slow"], 5)
        if new_version:
            models["quick"] = Doubling()
        answers = await asyncio.wait_for(asyncio.gather(ask(1), ask(2)), 10)  # one alone would be run on the loop
        models["slow"].free.set()
        await held_up
        scheduler.close()
        return [answer["y"].item() for answer in answers]

    assert run_async(go()) == [2, 4]


def test_a_call_that_held_up_the_loop_sends_the_next_ones_to_a_thread():
    queue = BatchQueue(None, SIGNATURE, ("y",), "model", True)
    task = Task({"x": rows(1)}, 1, None, 0.0)
    for seconds, quick in ((1e-4, True), (1e-3, True), (2 * LONG_SECONDS, False), (1e-4, False)):
        queue.note_seconds(task, seconds)
        assert queue.is_quick(task) == quick
    for _ in range(20):
        queue.note_seconds(task, 1e-4)
    assert queue.is_quick(task)


def test_the_size_of_a_request_counts_what_is_in_its_strings():
    short, long = (Task({"x": np.array([b"a" * size], object)}, 1, None, 0.0) for size in (10, 1_000_000))
    assert short.size == (8 + 10).bit_length()
    assert long.size == (8 + 1_000_000).bit_length()


def test_a_request_without_samples_does_not_keep_others_apart(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        others = [ask(rows(2)), ask(rows(3)), ask(rows(4)), ask(rows())]
        await turns()
        model.free.set()
        answers = [(await future)["y"].ravel().tolist() for future in (first, *others)]
        answers.append((await ask(rows()))["y"].tolist())
        await asyncio.gather(ask(rows(5)), ask(rows(6)))
        return answers, model.batches

    answers, batches = batched(steps, BatchingOptions(8, num_batch_threads=1, allowed_batch_sizes=(1, 4, 8)))
    assert answers == [[2], [4], [6], [8], [], []]
    assert batches == [(1, 1), (4, 1), (0, 1), (4, 1)]


def test_a_full_batch_leaves_where_a_thread_is_free(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        others = [ask(rows(2)), ask(rows(3)), ask(rows(4))]
        assert await asyncio.get_running_loop().run_in_executor(None, model.begun.acquire, True, 10)
        model.free.set()
        await asyncio.gather(first, *others)
        return model.batches

    assert batched(steps, BatchingOptions(max_batch_size=2, num_batch_threads=2)) == [(1, 1), (2, 1), (1, 1)]


def test_a_request_waits_no_longer_than_the_timeout_where_a_thread_is_free(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        other = ask(rows(2))
        assert await asyncio.get_running_loop().run_in_executor(None, model.begun.acquire, True, 10)
        model.free.set()
        await asyncio.gather(first, other)
        return model.batches

    options = BatchingOptions(num_batch_threads=2, batch_timeout_micros=1000)
    assert batched(steps, options) == [(1, 1), (1, 1)]


def test_a_batch_is_filled_up_to_an_allowed_size(batched):
    async def steps(ask, model):
        return (await ask(rows(1, 2, 3)))["y"].ravel().tolist(), model.batches

    options = BatchingOptions(max_batch_size=8, allowed_batch_sizes=(2, 4, 8))
    assert batched(steps, options) == ([2, 4, 6], [(4, 1)])


def test_samples_of_different_shapes_share_no_batch(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        others = [ask(rows(2, width=2)), ask(rows(3, width=3)), ask(rows(4, width=2))]
        await turns()
        model.free.set()
        await asyncio.gather(first, *others)
        return sorted(model.batches)

    assert batched(steps) == [(1, 1), (1, 3), (2, 2)]


def test_shapes_that_the_signature_does_not_have_run_beside_the_batch(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        vector, scalar = np.float32([2, 3]), np.float32(4)
        others = [ask(x) for x in (vector, rows(5), scalar, rows(6), vector)]
        await turns()
        model.free.set()
        return [(await future)["y"].tolist() for future in (first, *others)], model.batches

    answers, batches = batched(steps)
    assert answers == [[[2]], [4, 6], [[10]], 8, [[12]], [4, 6]]
    assert sorted(batches) == [(), (1, 1), (2,), (2,), (2, 1)]


def test_requests_that_run_alone_may_wait_where_their_samples_could(batched):
    async def steps(ask, model):
        first = await held(ask, model, np.float32([1, 2]))
        others = [ask(np.float32([number])) for number in range(9)]
        await turns()
        model.free.set()
        answers = await asyncio.gather(first, *others, return_exceptions=True)
        return [getattr(answer, "code", None) for answer in answers], model.batches

    codes, batches = batched(steps, BatchingOptions(num_batch_threads=1, max_batch_size=4, max_enqueued_batches=2))
    assert codes == [None] * 9 + [Code.RESOURCE_EXHAUSTED]
    assert len(batches) == 9


def test_the_order_in_which_a_request_names_its_inputs_does_not_matter(run_async):
    signature = Signature("serving_default", "", {"a": X, "b": X}, {"y": TensorSpec("y:0", "float", FLOAT, (None,), 1)})

    class Weighing(Doubling):
        def run(self, signature, inputs, outputs):
            super().run(signature, {"x": inputs["a"]}, outputs)
            return {"y": 10 * (inputs["a"] + 1).sum(axis=1) + (inputs["b"] + 1).sum(axis=1)}

    async def go():
        model, scheduler = Weighing(), Scheduler(BatchingOptions(num_batch_threads=1))
        narrow, wide = rows(1, width=3), rows(1, width=5)

        def ask(**inputs):
            request = FakeLease("model", model), PredictRequest(signature, inputs)
            return asyncio.ensure_future(answered(scheduler, lambda: request))

        asked = [ask(a=narrow, b=wide), ask(b=narrow, a=wide), ask(b=wide, a=narrow)]
        answers = [outputs["y"].item() for outputs in await asyncio.gather(*asked)]
        scheduler.close()
        return answers, sorted(model.batches)

    assert run_async(go()) == ([70, 106, 70], [(1, 5), (2, 3)])


def test_samples_of_different_shapes_are_padded_where_that_is_asked_for(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        others = [ask(rows(2, width=2)), ask(rows(3, width=3))]
        await turns()
        model.free.set()
        return [(await future)["y"].tolist() for future in (first, *others)], model.batches

    options = BatchingOptions(num_batch_threads=1, pad_variable_length_inputs=True)
    answers, batches = batched(steps, options)
    assert answers == [[[2]], [[4, 4, 4]], [[6, 6, 6]]]  # each padded with its own first value
    assert batches == [(1, 1), (2, 3)]


def test_strings_are_padded_as_they_are():
    first, second = np.array([[b"a\0", b"b"]], object), np.array([[b"c", b"d", b"e"]], object)
    assert merge([first, second, first[:, :0]], 0).tolist() == [
        [b"a\0", b"b", b"a\0"],
        [b"c", b"d", b"e"],
        [b"", b"", b""],
    ]


def test_a_bad_request_does_not_spoil_those_that_it_travels_with(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        others = [ask(rows(2)), ask(rows(-3)), ask(rows(4))]
        await turns()
        model.free.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    good, bad, also_good = batched(steps)
    assert (good["y"].tolist(), also_good["y"].tolist()) == ([[4]], [[8]])
    assert isinstance(bad, ServingError)
    assert (bad.code, bad.message) == (Code.INVALID_ARGUMENT, "negative")


def test_a_full_queue_answers_resource_exhausted(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        waiting = [ask(rows(2)), ask(rows(3)), ask(rows(4)), ask(rows(5))]
        await turns()
        with pytest.raises(
            ServingError, match="The batch scheduling queue to which this task was submitted is full"
        ) as refused:
            await ask(rows(6))
        model.free.set()
        await asyncio.gather(first, *waiting)
        return refused.value.code

    options = BatchingOptions(max_batch_size=2, max_enqueued_batches=2, num_batch_threads=1)
    assert batched(steps, options) == Code.RESOURCE_EXHAUSTED


def test_requests_that_come_at_once_are_no_exception_to_the_limit_of_the_queue(batched):
    async def steps(ask, model):
        model.free.clear()
        asked = [ask(rows(n)) for n in range(10)]
        await turns()
        model.free.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    options = BatchingOptions(max_batch_size=2, max_enqueued_batches=2, num_batch_threads=1)
    answers = batched(steps, options)
    assert [answer["y"].item() for answer in answers[:6]] == [0, 2, 4, 6, 8, 10]
    assert [answer.code for answer in answers[6:]] == [Code.RESOURCE_EXHAUSTED] * 4


def test_a_request_larger_than_a_batch_is_refused_or_split(batched):
    async def steps(ask, model):
        return (await ask(rows(1, 2, 3, 4, 5)))["y"].ravel().tolist(), sorted(model.batches)

    with pytest.raises(ServingError, match="^Task size 5 is larger than maximum input batch size 2$") as refused:
        batched(steps, BatchingOptions(max_batch_size=2))
    assert refused.value.code == Code.INVALID_ARGUMENT
    split = BatchingOptions(max_batch_size=2, split_large_batches=True, num_batch_threads=1)
    y, batches = batched(steps, split)
    assert y == [2, 4, 6, 8, 10]
    assert sum(count for count, _ in batches) == 5
    assert max(count for count, _ in batches) == 2


def test_a_request_that_is_split_does_not_fill_the_queue_by_itself(batched):
    async def steps(ask, model):
        return (await ask(rows(*range(9))))["y"].ravel().tolist()

    options = BatchingOptions(max_batch_size=2, max_enqueued_batches=1, split_large_batches=True, num_batch_threads=1)
    assert batched(steps, options) == [2 * n for n in range(9)]


def test_a_request_that_was_split_and_given_up_is_not_run_to_its_end(batched):
    async def steps(ask, model):
        given_up = await held(ask, model, rows(1, 2, 3, 4, 5, 6))
        given_up.cancel()
        await turns()
        model.free.set()
        await ask(rows(7))
        return model.batches

    options = BatchingOptions(max_batch_size=2, split_large_batches=True, num_batch_threads=1)
    assert batched(steps, options) == [(2, 1), (1, 1)]


@pytest.mark.parametrize("sizes", ["samples", "outputs"])
def test_a_request_that_was_split_is_refused_where_its_outputs_cannot_be_put_together(run_async, sizes):
    class Growing(Doubling):
        def run(self, signature, inputs, outputs):
            count, largest = len(inputs["x"]), int(inputs["x"].max())
            return {"y": np.zeros((1,) if sizes == "samples" else (count, largest), np.float32)}

    async def go():
        model = Growing()
        scheduler = Scheduler(BatchingOptions(max_batch_size=2, split_large_batches=True, num_batch_threads=1))
        request = request_for(model, rows(1, 2, 3, 4))
        try:
            return await asyncio.wait_for(answered(scheduler, lambda: request), 10)
        finally:
            scheduler.close()

    with pytest.raises(ServingError, match="^Output y of a request that was split has the shapes ") as refused:
        run_async(go())
    assert refused.value.code == Code.FAILED_PRECONDITION


def test_a_request_that_was_given_up_is_not_run(batched):
    async def steps(ask, model):
        first = await held(ask, model, rows(1))
        given_up, other = ask(rows(2)), ask(rows(3))
        await turns()
        given_up.cancel()
        await turns()
        model.free.set()
        await asyncio.gather(first, other)
        return model.batches

    assert batched(steps) == [(1, 1), (1, 1)]


def test_without_batching_each_request_runs_by_itself_and_several_at_once(run_async):
    async def go():
        model, scheduler = Doubling(), Scheduler(None, threads=3)
        model.free.clear()
        asked = [asyncio.ensure_future(answered(scheduler, lambda n=n: request_for(model, rows(n)))) for n in range(3)]
        for _ in asked:
            assert await asyncio.get_running_loop().run_in_executor(None, model.begun.acquire, True, 10)
        model.free.set()
        answers = [outputs["y"].item() for outputs in await asyncio.gather(*asked)]
        scheduler.close()
        return answers, model.batches

    assert run_async(go()) == ([0, 2, 4], [(1, 1)] * 3)


def test_a_model_whose_outputs_do_not_count_samples_is_not_batched(run_async):
    class Summing(Doubling):
        def run(self, signature, inputs, outputs):
            super().run(signature, inputs, outputs)
            return {"y": inputs["x"].sum(keepdims=True)[0]}

    async def go():
        model, scheduler = Summing(), Scheduler(BatchingOptions(num_batch_threads=1))
        unknown = Signature("s", "", {"x": X}, {"y": TensorSpec("y:0", "float", FLOAT, None, 1)})

        def ask(n):
            request = FakeLease("model", model), PredictRequest(unknown, {"x": rows(n, n)})
            return asyncio.ensure_future(answered(scheduler, lambda: request))

        first = await held(ask, model, 1)
        others = [ask(n) for n in (2, 3)]
        await turns()
        model.free.set()
        answers = [(await future)["y"].item() for future in (first, *others)]
        scheduler.close()
        return answers

    assert run_async(go()) == [2, 4, 6]


def test_the_parameters_file_is_that_of_tensorflow_serving():
    text = """
        max_batch_size { value: 128 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 7 }
        num_batch_threads { value: 3 } allowed_batch_sizes: 32 allowed_batch_sizes: 128
        pad_variable_length_inputs: true enable_large_batch_splitting { value: true }
    """
    options = BatchingOptions.from_proto(text_format.Parse(text, messages.BatchingParameters()))
    assert options == BatchingOptions(128, 500, 7, 3, (32, 128), True, True, Proof.WARN)


@pytest.mark.parametrize("last", [16, 64])
def test_the_allowed_sizes_end_with_the_largest_batch_or_the_largest_request(last):
    text = f"""
        max_batch_size {{ value: 64 }} max_execution_batch_size {{ value: 16 }} allowed_batch_sizes: [8, {last}]
        enable_large_batch_splitting {{ value: true }}
    """
    options = BatchingOptions.from_proto(text_format.Parse(text, messages.BatchingParameters()))
    assert (options.max_batch_size, options.padded(3), options.padded(9)) == (16, 8, last)


def test_a_queue_of_no_batches_has_one_as_in_tensorflow_serving():
    text = "max_enqueued_batches { value: 0 }"
    options = BatchingOptions.from_proto(text_format.Parse(text, messages.BatchingParameters()))
    assert options.max_enqueued_batches == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_enqueued_batches { value: 0 } enable_large_batch_splitting { value: true }",
            "max_enqueued_batches must be positive; was 0",
        ),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        ("allowed_batch_sizes: 4 allowed_batch_sizes: 2", "must be monotonically increasing"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: 4",
            "must match max_batch_size; last entry was 4; expected 8",
        ),
    ],
)
def test_parameters_that_make_no_sense_are_refused(text, message):
    with pytest.raises(ServingError, match=message):
        BatchingOptions.from_proto(text_format.Parse(text, messages.BatchingParameters()))


def test_calls_that_wait_take_no_thread_from_others(run_async):
    async def go():
        scheduler, go_on = Scheduler(), threading.Event()
        waiting = [asyncio.ensure_future(scheduler.in_thread(go_on.wait, 60)) for _ in range(40)]
        try:
            return await asyncio.wait_for(asyncio.to_thread(lambda: "read"), 30)
        finally:
            go_on.set()
            await asyncio.gather(*waiting)
            scheduler.close()

    assert run_async(go()) == "read"
