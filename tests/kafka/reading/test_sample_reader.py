"""Samples read ahead of training: from any place exactly the rest, whatever came in between."""

import threading

import numpy as np
import pytest

from experiments_manager.kafka.errors import PartitionsLostError, TopicError
from experiments_manager.kafka.reading import sample_reader
from experiments_manager.kafka.reading.rotation import Position, Rotation
from experiments_manager.kafka.reading.sample_reader import SamplePosition, SampleReader
from experiments_manager.kafka.reading.shuffling import Shuffle
from experiments_manager.kafka.records.record_format import RecordFormat
from experiments_manager.kafka.records.structure import Structure

FORMAT = RecordFormat(Structure.of(np.arange(1)))
DEADLINE = 20


class Topic:
    """Partitions in memory: records of `per_record` samples in turn, and bad ones at some places."""

    def __init__(self, samples, *, partitions=2, per_record=1, bad=(), at_once=7):
        records = FORMAT.encode(np.arange(samples), per_record)
        for place in sorted(bad):
            records.insert(place, None if place % 2 else b"garbage")
        self.partitions = {n: list(enumerate(records[n::partitions])) for n in range(partitions)}
        self.at_once, self.readers = at_once, []

    @property
    def start(self):
        return SamplePosition(Position(dict.fromkeys(self.partitions, 0)))

    def reader(self, position, release=None):
        self.readers.append(Reader(self, position))
        return self.readers[-1]


class Reader:
    """A `TopicReader` of such a topic, whose partitions send some records at a time."""

    trouble, holds_back, is_caught_up = None, False, False

    def __init__(self, topic, position, ends=True):
        self.topic, self.rotation, self.is_closed, self.ends = topic, Rotation(position), False, ends
        self.left = {n: records[position.offsets[n] :] for n, records in topic.partitions.items()}

    @property
    def is_finished(self):
        return self.ends and self.rotation.is_finished

    def read(self, seconds):
        for number, records in self.left.items():
            sent, self.left[number] = records[: self.topic.at_once], records[self.topic.at_once :]
            if sent:
                self.rotation.add(number, [o for o, _ in sent], [v for _, v in sent], sent[-1][0] + 1)
            if not self.left[number]:
                self.rotation.finish(number)
        records = self.rotation.take()
        if records is None:
            threading.Event().wait(seconds / 10)
        return records

    def known_ends(self):
        return {n: len(records) for n, records in self.topic.partitions.items()}

    def close(self):
        self.is_closed = True


class Bad:
    """Counts bad records."""

    topic = "numbers"

    def __init__(self):
        self.taken, self.is_closed = 0, False

    def take(self, samples):
        self.taken += len(samples.bad)

    def close(self):
        self.is_closed = True


class Training:
    """Takes samples in batches, as the loop does."""

    at_once = False
    """Whether it asks for the samples of a batch, instead of taking chunks as they come."""

    def __init__(self, topic, position=None, *, batch=1, shuffle=None, **options):
        self.batch, self.bad = batch, Bad()
        self.reader = SampleReader(
            topic.reader, FORMAT, position or topic.start, self.bad, shuffle=shuffle, least_ahead=2 * batch, **options
        )
        self.chunks, self.waiting, self.numbers = self.reader.chunks(), [], []

    def step(self):
        """Trains on a batch, the last one perhaps smaller; false at the end."""
        while (ready := self.reader.ready(self.batch, 1, DEADLINE)) == 0:
            raise AssertionError("nothing came")
        if self.at_once:
            self.waiting = [n for piece in self.reader.samples(self.batch * ready) for n in piece[0].tolist()]
        while not self.at_once and len(self.waiting) < self.batch * ready:
            chunk = next(self.chunks, None)
            if chunk is None:
                break
            self.waiting += chunk[0].tolist()
        batch, self.waiting = self.waiting[: self.batch], self.waiting[self.batch :]
        self.reader.took(self.batch if batch else 0)
        self.numbers += batch
        return bool(batch)

    def to_the_end(self):
        while self.step():
            pass
        return self.numbers

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.reader.close()
        assert not self.reader._thread.is_alive()


TOPICS = {
    "one sample a record": Topic(60),
    "three partitions of different lengths": Topic(61, partitions=3),
    "five samples a record": Topic(62, per_record=5),
    "bad records in between": Topic(60, bad=(0, 1, 9, 20, 61, 64)),
    "several samples, and bad records": Topic(63, per_record=4, bad=(0, 3, 4, 11)),
    "one record at a time": Topic(40, per_record=3, at_once=1),
}
SHUFFLES = {"in order": None, "shuffled": Shuffle(16, 7, 0), "shuffled in windows that are records": Shuffle(2, 7, 1)}


@pytest.fixture(params=["chunk by chunk", "a batch at once"], autouse=True)
def way(request, monkeypatch):
    """How samples are handed over."""
    monkeypatch.setattr(Training, "at_once", request.param == "a batch at once")


@pytest.fixture(params=TOPICS)
def topic(request):
    return TOPICS[request.param]


@pytest.fixture(params=SHUFFLES)
def shuffle(request, monkeypatch):
    monkeypatch.setattr(sample_reader, "_PIECE_BYTES", 40)  # so that a window is handed over in pieces
    return SHUFFLES[request.param]


@pytest.mark.parametrize("batch", [1, 4])
def test_from_every_place_comes_exactly_the_rest(topic, shuffle, batch):
    with Training(topic, batch=batch, shuffle=shuffle) as whole:
        places = [whole.reader.position()]
        while whole.step():
            places.append(whole.reader.position())
    assert sorted(whole.numbers) == list(range(len(whole.numbers)))
    for taken, place in enumerate(places):
        again = SamplePosition.from_json(place.to_json())
        with Training(topic, again, batch=batch, shuffle=shuffle) as rest:
            assert rest.reader.position() == place
            assert rest.to_the_end() == whole.numbers[taken * batch :], place


def test_a_resumed_reader_gives_places_that_can_be_resumed_again(topic, shuffle):
    with Training(topic, batch=3, shuffle=shuffle) as whole:
        whole.to_the_end()
    numbers, place = [], None
    while True:
        with Training(topic, place, batch=3, shuffle=shuffle) as part:
            if not part.step():
                break
            part.step()
            numbers, place = numbers + part.numbers, part.reader.position()
    assert numbers == whole.numbers


def test_the_place_knows_how_many_records_were_read_and_how_many_of_them_were_bad():
    topic = TOPICS["several samples, and bad records"]
    with Training(topic) as training:
        training.to_the_end()
        place, taken = training.reader.position(), training.bad.taken
    records = sum(map(len, topic.partitions.values()))
    assert (place.records_read, place.bad, taken) == (records, 4, 4)


def test_bad_records_at_the_end_of_a_shuffled_pass_count():
    topic = Topic(10, bad=(10, 11))
    with Training(topic, shuffle=Shuffle(1, 1, 0)) as training:
        training.to_the_end()
        place = training.reader.position()
    assert (place.records_read, place.bad) == (12, 2)


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_a_shuffled_pass_gives_each_sample_once(window):
    with Training(Topic(200, per_record=3), shuffle=Shuffle(window, 1, 0)) as training:
        assert sorted(training.to_the_end()) == list(range(200))


def test_the_order_follows_from_seed_and_epoch():
    def order(seed, epoch):
        with Training(Topic(100), shuffle=Shuffle(30, seed, epoch)) as training:
            return training.to_the_end()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(*key)) for key in ((1, 0), (1, 1), (2, 0))}) == 3


def test_a_batch_that_is_larger_than_what_is_read_ahead_comes(monkeypatch):
    monkeypatch.setattr(sample_reader, "_BYTES_AHEAD", 16)
    with Training(Topic(100), batch=45) as training:
        assert training.to_the_end() == list(range(100))


def test_reading_waits_while_enough_is_read_ahead(monkeypatch):
    monkeypatch.setattr(sample_reader, "_BYTES_AHEAD", 16)
    topic = Topic(1000)
    with Training(topic, batch=4) as training:
        assert training.step()
        [reader] = topic.readers
        assert min(map(len, reader.left.values())) > 400
        assert len(training.to_the_end()) == 1000


class Waiting(Reader):
    """A topic that is followed."""

    def __init__(self, topic, position):
        super().__init__(topic, position, ends=False)


def follow(topic):
    topic.reader = lambda position, release=None: topic.readers.append(Waiting(topic, position)) or topic.readers[-1]
    return topic


@pytest.mark.parametrize("state", ["at once", "waiting for records", "full", "at the end", "handed over"])
def test_closing_ends_the_thread_in_every_state(state, monkeypatch):
    monkeypatch.setattr(sample_reader, "_BYTES_AHEAD", 16)
    topic = follow(Topic(0)) if state == "waiting for records" else Topic(1000 if state == "full" else 20)
    with Training(topic) as training:
        if state == "waiting for records":
            assert training.reader.ready(1, 1, 0.05) == 0
        elif state == "full":
            assert training.reader.ready(1, 1, DEADLINE) == 1
        elif state == "at the end":
            training.to_the_end()
        elif state == "handed over":
            training.step()
    assert all(reader.is_closed for reader in topic.readers)
    assert training.bad.is_closed


def test_an_iteration_that_waits_ends_when_the_reader_is_closed():
    seen = []
    with Training(follow(Topic(3))) as training:
        thread = threading.Thread(target=lambda: seen.extend(training.chunks))
        thread.start()
        assert training.reader.ready(3, 1, DEADLINE) == 1
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert [number for chunk in seen for number in chunk[0]] == [0, 1, 2]


def test_what_ended_reading_is_raised_once_all_before_it_was_taken(monkeypatch):
    def fails(self, samples):
        if samples.records.offsets[-1] > 6:
            raise TopicError("too many are bad")

    monkeypatch.setattr(Bad, "take", fails)
    with Training(Topic(20, partitions=1)) as training, pytest.raises(TopicError, match="too many are bad"):
        training.to_the_end()
    assert training.numbers == list(range(7))


def test_an_unexpected_error_names_the_topic():
    def broken(position, release):
        raise KeyError("surprise")

    topic = Topic(10)
    topic.reader = broken
    with Training(topic) as training, pytest.raises(TopicError, match=r"Topic numbers cannot be read.*surprise"):
        training.step()


def test_what_was_read_ahead_of_partitions_that_were_lost_is_not_trained_on():
    topic = follow(Topic(10))
    with Training(topic) as training:
        assert training.reader.ready(5, 1, DEADLINE) == 1

        def lost(seconds):
            raise PartitionsLostError("lost")

        topic.readers[0].read = lost
        training.reader._thread.join(0.5)
        with pytest.raises(PartitionsLostError):
            while True:
                training.reader.ready(1, 1)


def test_a_stream_without_new_records_ends_after_the_idle_timeout_and_its_reader_stays_open():
    topic = follow(Topic(5))
    with Training(topic, batch=2, idle_timeout=0.2) as training:
        assert training.to_the_end() == [0, 1, 2, 3, 4]
        assert not topic.readers[0].is_closed
    assert topic.readers[0].is_closed


def test_giving_partitions_away_waits_for_training_and_reading_goes_on_at_its_place():
    topic, places, stepped = Topic(20, partitions=1), [], threading.Event()

    class Giving(Waiting):
        def read(self, seconds):
            if stepped.is_set() and not places:
                places.append(self.release())
                self.rotation = Rotation(places[0])
                self.left = {0: self.topic.partitions[0][places[0].offsets[0] :]}
            return super().read(seconds)

    def make(position, release):
        reader = Giving(topic, position)
        reader.release = release
        return reader

    topic.reader = make
    with Training(topic, batch=1) as training:
        for _ in range(3):
            assert training.step()
        stepped.set()
        with training.reader._changed:
            assert training.reader._changed.wait_for(lambda: training.reader.must_release, DEADLINE)
        assert training.reader.ready(1, 1) == 0
        training.reader.release()
        training.chunks, training.waiting = training.reader.chunks(), []
        for _ in range(17):
            assert training.step()
    assert places[0].offsets == {0: 3}
    assert training.numbers == list(range(20))
