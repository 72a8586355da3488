"""Whether a model's samples depend on each other, tried with models whose answer is known."""

import asyncio
import json
import threading

import numpy as np
import pytest

from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.batching import row_proof
from experiments_manager.serving.batching.options import BatchingOptions, Proof
from experiments_manager.serving.batching.row_proof import SIZES, prove
from experiments_manager.serving.batching.row_prover import PROOF_FILE, KeptProofs, RowProver
from experiments_manager.serving.batching.scheduler import Scheduler
from experiments_manager.serving.models.signatures import PredictRequest, Signature, TensorSpec
from tests.serving.batching.test_scheduler import FakeLease, answered

FLOAT, INT, TEXT = np.dtype(np.float32), np.dtype(np.int32), np.dtype(object)


@pytest.fixture(autouse=True)
def time_enough(monkeypatch):
    """A proof is cut short where time runs out, which it does on a busy machine."""
    monkeypatch.setattr(row_proof, "MOST_SECONDS", 60.0)


def signature_of(dtype=FLOAT, **about):
    spec = TensorSpec("x:0", "", dtype, (None, 3), 1)
    return Signature("serving_default", "", {"x": spec}, {"y": spec}, **about)


def proof_of(function, dtype=FLOAT, seeds=(), **about):
    def call(inputs):
        with np.errstate(all="ignore"):
            return {"y": function(inputs["x"])}

    return prove(call, signature_of(dtype, **about), {"x": (3,)}, seeds)


INDEPENDENT = {
    "doubles": lambda x: 2 * x,
    "sums each": lambda x: x.sum(1),
    "numbers of classes": lambda x: x.argmax(1),
}


@pytest.mark.parametrize("function", INDEPENDENT.values(), ids=INDEPENDENT)
def test_independent_samples_may_share_calls_of_every_size_tried(function):
    proof = proof_of(function)
    assert proof.exact == proof.rounded == SIZES and not proof.reason
    assert proof.sizes(rounded=False) == (1, *SIZES)


DEPENDENT = {
    "the mean": lambda x: x - 0.5 * x.mean(0),
    "a billionth of the mean": lambda x: (x + 1e-9 * x.mean()).astype(FLOAT),
    "a bounded trace of the mean": lambda x: (x + 1e-6 * np.tanh(x.mean())).astype(FLOAT),
    "the largest": lambda x: x / (1 + np.abs(x).max()),
    "order": lambda x: x[::-1],
    "places": lambda x: x + np.arange(len(x), dtype=FLOAT)[:, None],
    "the number of samples": lambda x: x / len(x),
    "the first": lambda x: x + x[:1],
    "equal ones": lambda x: x + (len(x) - len(np.unique(x, axis=0))),
    "not-a-number": lambda x: x + 0 * x.sum(),
    "a rare large number": lambda x: x * (0 if (x > 1e5).any() else 1),
    "the shape": lambda x: x[:, : len(x)],
}


@pytest.mark.parametrize("function", DEPENDENT.values(), ids=DEPENDENT)
def test_what_others_send_is_found_in_a_samples_answer_however_little_it_is(function):
    proof = proof_of(function)
    assert not proof.exact and not proof.rounded and proof.reason


def test_texts_that_are_padded_to_the_longest_depend_on_each_other():
    def lengths(x):
        sizes = np.vectorize(len)(x)
        return sizes / max(1, sizes.max())

    assert "with other samples in the same call" in proof_of(lengths, TEXT).reason
    assert proof_of(lambda x: np.vectorize(len)(x), TEXT).exact == SIZES


def test_answers_whose_last_bits_follow_from_the_size_of_the_call_are_told_apart():
    proof = proof_of(lambda x: x if len(x) == 1 else np.nextafter(x, np.float32(np.inf)))
    assert (proof.exact, proof.rounded) == ((), SIZES)
    assert "in calls of 2 samples, by up to" in proof.reason
    assert (proof.sizes(rounded=False), proof.sizes(rounded=True)) == ((), (1, *SIZES))


def test_a_model_with_random_answers_one_answer_or_none_is_not_proved():
    random = np.random.default_rng(0)
    assert "different answers to the same sample" in proof_of(lambda x: x + random.normal()).reason
    same = proof_of(lambda x: np.ones_like(x))
    assert same.unanswered and "the same answer" in same.reason
    assert proof_of(lambda x: x, alone="its graph draws random numbers (RandomUniform)").reason.startswith("its graph")


def test_an_embedding_is_asked_for_what_it_has_and_odd_inputs_are_learnt_from_requests():
    def embedding(x):
        if (x >= 7).any():
            raise ServingError(Code.INVALID_ARGUMENT, "not in [0, 7)")
        return np.arange(7, dtype=FLOAT)[x] ** 2

    assert proof_of(embedding, INT).exact == SIZES

    def picky(x):
        if not ((x > 4000) & (x < 4100)).all():
            raise ServingError(Code.INVALID_ARGUMENT, "out of range")
        return x * 2

    refused = proof_of(picky, INT)
    assert refused.unanswered and "out of range" in refused.reason
    seeds = [{"x": np.array([[4001 + n, 4050, 4099 - n]], np.int32)} for n in range(4)]
    assert proof_of(picky, INT, seeds).exact == SIZES


def test_a_slow_model_is_proved_for_fewer_sizes_and_odd_numbers_are_kept_from_loops(monkeypatch):
    monkeypatch.setattr(row_proof, "MOST_SECONDS", 0.0)
    assert proof_of(lambda x: 2 * x).rounded == SIZES[:1]
    seen = []
    proof_of(lambda x: [seen.append(bool(np.isfinite(x).all())), 2 * x][1], loops=True)
    assert all(seen)


class Fake:
    """A model with a folder."""

    engine = "fake 1"
    mixing = ""

    def __init__(self, path, function):
        self.path, self.function, self.sizes = path, function, []
        self.signatures = {"serving_default": signature_of()}
        self.lock = threading.Lock()

    def reason_rows_mix(self, signature, outputs, shapes):
        return self.mixing

    def run(self, signature, inputs, outputs):
        self.sizes.append(len(inputs["x"]))
        with np.errstate(all="ignore"):
            return {"y": self.function(inputs["x"])}


@pytest.fixture
def version(tmp_path):
    (tmp_path / "1" / "variables").mkdir(parents=True)
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"graph")
    return tmp_path / "1"


async def asked_until_settled(model, asked=Proof.EXACT):
    """Asks alone and then, once it is known whether requests may share calls, eight at once."""
    scheduler = Scheduler(BatchingOptions(num_batch_threads=1, split_large_batches=True, proof=asked))

    def ask(*values):
        x = np.array([values], FLOAT).T.repeat(3, 1)
        request = PredictRequest(model.signatures["serving_default"], {"x": x}, ("y",))
        return asyncio.ensure_future(answered(scheduler, lambda: (FakeLease("model", model), request)))

    try:
        await ask(1.0)
        claim = next(iter(scheduler._prover._claims[model].values()))
        while claim.waiting:
            await asyncio.sleep(0.01)
        model.sizes.clear()
        answers = await asyncio.gather(*[ask(float(n)) for n in range(8)])
        large = await ask(*map(float, range(1500)))
        return [answer["y"][0, 0] for answer in answers], len(large["y"])
    finally:
        scheduler.close()


def test_requests_share_calls_once_it_is_proved_and_never_where_it_is_not(version, run_async, caplog):
    caplog.set_level("INFO")
    good, bad = Fake(version, lambda x: 2 * x), Fake(None, lambda x: 2 * x - x.mean())
    assert run_async(asked_until_settled(good)) == ([2.0 * n for n in range(8)], 1500)
    assert max(good.sizes[:-1]) > 1 and good.sizes[-1] == 1500  # a size that was not proved runs alone, and whole
    assert run_async(asked_until_settled(bad))[0] == [float(n) for n in range(8)]
    assert bad.sizes == [1] * 8 + [1500]
    assert "do not depend on each other: up to 64 share a call" in caplog.text
    assert "run alone: its output y differs with other samples in the same call" in caplog.text


def test_requests_run_alone_where_the_graph_may_mix_samples_that_were_not_tried(version, run_async, caplog):
    caplog.set_level("INFO")
    model = Fake(version, lambda x: 2 * x)
    model.mixing = "its operation Max goes over all samples"
    run_async(asked_until_settled(model, Proof.ROUNDED))
    assert set(model.sizes[:-1]) == {1}
    assert "run alone: its operation Max goes over all samples, whatever was seen" in caplog.text
    assert "batch_rounded" not in caplog.text


def test_an_answer_whose_shape_follows_from_other_samples_is_not_proved():
    longest = lambda x: np.ones((len(x), int(min(9, 1 + abs(x).max()))), FLOAT) * x[:, :1]  # noqa: E731
    assert "differs" in proof_of(longest).reason or "shape" in proof_of(longest).reason


def test_requests_share_calls_as_the_user_says_with_a_warning(run_async, caplog):
    model = Fake(None, lambda x: 2 * x - x.mean())
    run_async(asked_until_settled(model, Proof.WARN))
    assert max(model.sizes[:-1]) > 1
    assert "share calls as the batching parameters say, unproved" in caplog.text


def test_a_proof_is_kept_beside_the_version_and_counts_for_its_content_and_engine_alone(version, run_async):
    run_async(asked_until_settled(Fake(version, lambda x: 2 * x)))
    kept = json.loads((version / PROOF_FILE).read_text())
    [key] = kept["proofs"]
    again = Fake(version, lambda x: 2 * x)
    assert KeptProofs.of(again).find(key).exact == SIZES
    run_async(asked_until_settled(again))
    assert len(again.sizes) <= 9  # nothing was tried
    again.engine = "fake 2"
    assert KeptProofs.of(again).find(key) is None
    again.engine = "fake 1"
    (version / "variables" / "v.data").write_bytes(b"others")
    assert KeptProofs.of(again).find(key) is None
    for garbage in (
        "",
        "[]",
        '{"format": 1}',
        json.dumps(kept | {"proofs": 3}),
        json.dumps(kept | {"proofs": {key: 1}}),
    ):
        (version / PROOF_FILE).write_text(garbage)
        assert KeptProofs.of(again).find(key) is None


def test_a_version_that_cannot_be_written_to_is_proved_in_memory(version, run_async):
    (version / "assets.extra").write_text("in the way")
    model = Fake(version, lambda x: 2 * x)
    run_async(asked_until_settled(model))
    assert max(model.sizes[:-1]) > 1


def test_a_model_that_is_not_served_any_more_ends_its_proof(run_async):
    def gone(x):
        raise ServingError(Code.UNAVAILABLE, "not served any more")

    prover, model = RowProver(Proof.EXACT), Fake(None, gone)
    assert prover.sizes(model, "m", model.signatures["serving_default"], ("y",), {"x": np.ones((1, 3), FLOAT)}) == ()
    claim = next(iter(prover._claims[model].values()))
    prover.close()
    prover._thread.join(10)
    assert not prover._thread.is_alive() and claim.sizes == ()
