import asyncio

import numpy as np
import pytest

from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.batching.scheduler import run_in_parts
from experiments_manager.serving.models.signatures import PredictRequest, Signature, TensorSpec

X = TensorSpec("x:0", "float", np.dtype(np.float32), (None,), 1)
SIGNATURE = Signature("serving_default", "", {"x": X}, {"y": X})


def split(run_async, function, samples=5, most=2, at_once=2):
    """Runs `function` on the numbers from 0 on in parts, and lets the loop turn before each answer."""
    x = np.arange(samples, dtype=np.float32)
    request = PredictRequest(SIGNATURE, {"x": x}, ("y",))

    async def run(part):
        inputs = part.inputs
        await asyncio.sleep(0)
        return {"y": function(inputs["x"])}

    return run_async(run_in_parts(request, most, at_once, run))["y"].tolist()


def test_parts_are_put_together_in_their_order(run_async):
    assert split(run_async, lambda x: 2 * x) == [0, 2, 4, 6, 8]


def test_no_more_parts_are_on_their_way_than_may_be(run_async):
    on_their_way, most = [], []

    async def run(part):
        on_their_way.append(None)
        most.append(len(on_their_way))
        await asyncio.sleep(0)
        on_their_way.pop()
        return part.inputs

    request = PredictRequest(SIGNATURE, {"x": np.arange(20)}, ("x",))
    assert run_async(run_in_parts(request, 2, 3, run))["x"].tolist() == list(range(20))
    assert max(most) == 3


def test_all_parts_have_ended_when_one_was_refused(run_async):
    ended = []

    def answer(x):
        ended.append(x[0])
        if x[0] == 0:
            raise ServingError(Code.INVALID_ARGUMENT, "not this one")
        return x

    with pytest.raises(ServingError, match="^not this one$"):
        split(run_async, answer)
    assert ended == [0, 2, 4]


@pytest.mark.parametrize("function", [lambda x: x.sum(), lambda x: x[:1], lambda x: np.zeros((len(x), int(x[0])))])
def test_outputs_that_do_not_fit_together_are_refused(run_async, function):
    with pytest.raises(ServingError, match="^Output y of a request that was split has the shapes ") as refused:
        split(run_async, function)
    assert refused.value.code == Code.FAILED_PRECONDITION
