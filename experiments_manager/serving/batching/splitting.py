"""Requests of more samples than a batch may have: they run in parts, whose outputs are put together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.models.signatures import Arrays, PredictRequest


async def run_in_parts(
    request: PredictRequest, most: int, at_once: int, run: Callable[[PredictRequest], Awaitable[Arrays]]
) -> Arrays:
    """Run a request in parts.

    Args:
        request: The request; its signature counts its samples.
        most: Most samples of a part.
        at_once: Parts that are on their way at the same time: a request must not fill the queue by itself.
        run: Runs a part.

    Raises:
        ServingError: FAILED_PRECONDITION where the outputs are not by sample, or differ in size; else what a part
            answered.
    """
    parts = [
        request._replace(inputs={name: array[at : at + most] for name, array in request.inputs.items()})
        for at in range(0, request.signature.count_samples(request.inputs), most)
    ]
    places = asyncio.Semaphore(at_once)

    async def answer(part: PredictRequest) -> Arrays:
        async with places:
            return await run(part)

    # All are waited for, whatever one answers: with the request's own answer the model's lease ends.
    return _joined(parts, await asyncio.gather(*map(answer, parts), return_exceptions=True))


def _joined(parts: Sequence[PredictRequest], answers: Sequence[Arrays | BaseException]) -> Arrays:
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    counts = [part.signature.count_samples(part.inputs) for part in parts]
    joined = {}
    for name in answers[0]:
        arrays = [answer[name] for answer in answers]
        if [array.shape for array in arrays] != [(count, *arrays[0].shape[1:]) for count in counts]:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"Output {name} of a request that was split has the shapes {[list(array.shape) for array in arrays]} "
                f"for {counts} samples, which cannot be put together",
            )
        joined[name] = np.concatenate(arrays)
    return joined
