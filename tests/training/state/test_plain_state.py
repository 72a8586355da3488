"""Attributes of callbacks as plain data, and back."""

import argparse
import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import itertools
import json
import pathlib
import random
import types
import zoneinfo

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.training.state.plain_restore import Unpacker
from experiments_manager.training.state.plain_state import NotSerializableError, Packer, TracedValueError


@dataclasses.dataclass
class Record:
    """As users write them."""

    step: int
    value: float
    further: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """The same with slots."""

    name: str


class Node:
    """An object without a constructor that could be called."""

    def __init__(self, other):
        self.other = other


class Colour(enum.Enum):
    """An enumeration."""

    RED = 1


class Mode(enum.Flag):
    """One whose members may be combined."""

    A = enum.auto()
    B = enum.auto()


class Private:
    """Attributes that the class alone knows by their names."""

    __slots__ = ("__level",)

    def __init__(self, level):
        self.__level = level

    def __eq__(self, other):
        return self.__level == other.__level

    __hash__ = None


class Named(collections.UserDict):
    """A dictionary of the user's."""


Point = collections.namedtuple("Point", "x y")

VALUES = {
    "numbers": [1, 2.5, True, None, 10**30, float("inf"), 3 + 4j],
    "keys that are no strings": {1: "a", (1, 2): "b", 2.5: {"c": 1}, None: 0, False: 1},
    "keys like tags": {"__tuple__": [1], "plain": 2},
    "deque": collections.deque([1, (2, 3)], maxlen=5),
    "sets": [{1, 2, "x"}, frozenset({(1, 2)})],
    "tuples": (1, (2, [3]), Point(1, [2])),
    "counters": [collections.Counter("hello"), collections.OrderedDict(b=1, a=2)],
    "default dictionaries": collections.defaultdict(list, {3: [1]}),
    "dates": [
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        datetime.date(2026, 1, 2),
        datetime.time(1, 2),
        datetime.timedelta(days=1, microseconds=5),
    ],
    "exact numbers": [decimal.Decimal("1.10"), fractions.Fraction(1, 3)],
    "bytes": [b"\x00\xff", bytearray(b"ab"), array.array("d", [0.5])],
    "paths": pathlib.Path("/a/b"),
    "ranges": [range(1, 9, 2), slice(None, 3, None)],
    "dataclasses": [Record(1, 0.5, {2: Frozen("z")}), Frozen("a")],
    "enumerations": Colour.RED,
    "flags": [Mode.A | Mode.B, Mode.B, Mode(0)],
    "other paths": [pathlib.PureWindowsPath("c:/a"), pathlib.PurePosixPath("b")],
    "private slots": Private(3.5),
    "namespaces": [types.SimpleNamespace(a=[1]), argparse.Namespace(b=2)],
    "dictionaries and lists of users": [
        Named(a=1),
        collections.UserList([1]),
        collections.ChainMap({"a": 1}, {"b": 2}),
    ],
}
ARRAYS = {
    "large": np.arange(1000, dtype=np.float32).reshape(10, 100),
    "small": np.array([[1, 2]], np.int8),
    "of texts": np.array(["a", "bcd"]),
    "of times": np.array(["2026-01-02"], "datetime64[s]"),
    "complex": np.array([1 + 2j]),
    "structured": np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    "scalar": np.float64(0.1),
    "of wide numbers": np.array([1, 3], np.longdouble) / 7,
    "wide scalar": np.longdouble(1) / 7,
    "of the other byte order": np.array([1.5], ">f8"),
    "turned": np.arange(12.0).reshape(2, 3, 2).transpose(1, 2, 0).copy(order="K"),
    "large and turned": np.asfortranarray(np.arange(200.0).reshape(10, 20)),
    "matrix": np.matrix([[1.0, 2.0], [3.0, 4.0]]),
    "records": np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]).view(np.recarray),
}


def there_and_back(value, live=None):
    packer = Packer("callbacks/")
    packed = json.loads(json.dumps(packer.attribute(value)))
    return Unpacker(packer.tensors).unpack(packed, live)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_comes_back_as_it_was(value):
    found = there_and_back(value)
    assert (found, type(found)) == (value, type(value))
    assert getattr(found, "maxlen", None) == getattr(value, "maxlen", None)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_an_array_comes_back_as_it_was(array):
    found = there_and_back({"a": array})["a"]
    assert (type(found), found.dtype, found.strides) == (type(array), array.dtype, array.strides)
    assert np.array_equal(found, array)


def test_an_array_that_two_hold_stays_one_and_a_part_of_one_sees_what_is_written_into_it():
    row, ring = np.zeros(3), np.arange(10, dtype="int64")
    one, [other], window, turned, back = there_and_back([row, [row], ring[2:5], ring.reshape(2, 5).T, ring])
    one += 1
    back[3], turned[4, 1] = 70, 90
    assert other.tolist() == [1, 1, 1]
    assert (window.tolist(), back[9]) == ([2, 70, 4], 90)


def test_a_part_of_a_much_larger_array_is_written_alone():
    packer = Packer("callbacks/")
    packer.attribute([np.zeros(100_000)[5:9]])
    assert packer.tensors == {}


ZONED = {
    "a zone by name": datetime.datetime(2026, 10, 25, 1, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "the second time": datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
    "without a zone": datetime.datetime(2026, 10, 25, 2, 30, fold=1),
    "a time of day": datetime.time(2, 30, tzinfo=zoneinfo.ZoneInfo("Asia/Tokyo")),
}


@pytest.mark.parametrize("value", ZONED.values(), ids=ZONED)
def test_a_time_keeps_the_zone_whose_offset_changes(value):
    found = there_and_back([value])[0]
    assert (found, found.fold, found.tzinfo, found.utcoffset()) == (
        (value, value.fold, value.tzinfo, value.utcoffset())
    )


class Summer(datetime.tzinfo):
    """A zone that has no name."""

    def utcoffset(self, when):
        return datetime.timedelta(hours=2)


def test_a_time_in_a_zone_without_a_name_is_named():
    with pytest.raises(NotSerializableError, match="datetime"):
        there_and_back([datetime.datetime(2026, 1, 1, tzinfo=Summer())])


GENERATORS = {
    "Generator": lambda: np.random.default_rng(3),
    "Philox": lambda: np.random.Generator(np.random.Philox(3)),
    "RandomState": lambda: np.random.RandomState(3),
    "random.Random": lambda: random.Random(3),
}


def draws(generator):
    return [generator.normal() if hasattr(generator, "normal") else generator.gauss(0, 1) for _ in range(5)]


@pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS)
def test_a_random_generator_goes_on_where_it_was(make):
    generator, live = make(), make()
    draws(generator)
    packer = Packer("callbacks/")
    packed = json.loads(json.dumps(packer.attribute([generator])))
    expected = draws(generator)
    assert draws(Unpacker(packer.tensors).unpack(packed)[0]) == expected
    assert Unpacker(packer.tensors).unpack(packed, [live])[0] is live
    assert draws(live) == expected


def test_a_random_generator_spawns_others_than_it_had_spawned():
    generator, live, without_seed = np.random.default_rng(3), np.random.default_rng(3), np.random.default_rng()
    generator.spawn(2)
    packer = Packer("callbacks/")
    packed = json.loads(json.dumps(packer.attribute([generator])))
    expected = draws(generator.spawn(1)[0])
    restored = [Unpacker(packer.tensors).unpack(packed, [held])[0] for held in (None, live, without_seed)]
    assert [draws(each.spawn(1)[0]) for each in restored] == [expected] * 3
    assert restored[1] is live


def test_a_random_generator_without_a_seed_goes_on_where_it_was():
    generator, live = np.random.default_rng(), np.random.default_rng()
    assert there_and_back([generator], [live])[0] is live
    assert draws(live) == draws(generator)


def test_what_is_shared_stays_shared_and_circles_stay_closed():
    shared = [1]
    node = Node(None)
    node.other = node
    one, other, circle = there_and_back([shared, shared, node])
    assert one is other
    assert circle.other is circle


def test_what_is_there_already_is_changed_rather_than_replaced():
    live = {"list": [0], "deque": collections.deque(maxlen=2), "record": Record(0, 0.0), "set": {1}}
    parts = dict(live)
    found = there_and_back(
        {"list": [1, 2], "deque": collections.deque([1], maxlen=2), "record": Record(1, 2.0), "set": set()}, live
    )
    assert found is live
    assert all(found[name] is part for name, part in parts.items())
    assert parts == {"list": [1, 2], "deque": collections.deque([1]), "record": Record(1, 2.0), "set": set()}


def test_variables_and_generators_of_tensorflow_are_put_back_in_place():
    variable, generator = tf.Variable([1.0, 2.0]), tf.random.Generator.from_seed(5)
    live = [tf.Variable([0.0, 0.0]), tf.random.Generator.from_seed(0)]
    generator.normal([3])
    found = there_and_back([variable, generator], live)
    assert found[0].numpy().tolist() == [1.0, 2.0]
    assert found[1].normal([]).numpy() == generator.normal([]).numpy()


ITERATORS = {
    "count": lambda: itertools.count(3),
    "cycle": lambda: itertools.cycle([1, 2, 3]),
    "of a list": lambda: iter([1, 2, 3, 4]),
    "enumerated": lambda: enumerate([1, 2, 3]),
    "chosen": lambda: itertools.compress(itertools.count(), itertools.cycle([1, 0, 1])),
    "all pairs": lambda: itertools.product("ab", range(3)),
    "orders": lambda: itertools.permutations([1, 2, 3]),
    "selections": lambda: itertools.combinations("abcd", 2),
    "zipped to the longest": lambda: itertools.zip_longest([1], itertools.count(), fillvalue=0),
    "zipped": lambda: zip([1, 2, 3], itertools.count(), strict=False),
}


@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS)
def test_an_iterator_of_pythons_goes_on_where_it_was(make):
    iterator = make()
    next(iterator)
    one, other = there_and_back([iterator, iterator])
    assert one is other
    assert list(itertools.islice(one, 4)) == list(itertools.islice(iterator, 4))


UNWRITABLE = {"map": map(str, [1]), "generator": (number for number in [1])}


@pytest.mark.parametrize("value", UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_cannot_be_written_is_named_by_its_type(value):
    with pytest.raises(NotSerializableError, match=f"iterator.*{type(value).__name__}"):
        Packer("callbacks/").attribute({"deep": [value]})


def test_functions_and_classes_are_no_state():
    live = [len, Record, 5]
    assert there_and_back([print, Node, 6], live) == [len, Record, 6]


def test_what_is_no_state_and_not_there_any_more_is_an_error():
    with pytest.raises(NotSerializableError, match="no longer exists"):
        there_and_back([print], [])


@pytest.mark.parametrize(
    "value",
    [tf.ragged.constant([[1], []]), tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)],
    ids=lambda value: type(value).__name__,
)
def test_what_tensorflow_keeps_elsewhere_is_named(value):
    with pytest.raises(NotSerializableError, match=type(value).__name__):
        Packer("callbacks/").attribute(value)


def test_a_callback_within_a_callback_is_written_with_its_attributes():
    inner, live = keras.callbacks.EarlyStopping(min_delta=0.1), keras.callbacks.EarlyStopping(min_delta=0.1)
    inner.wait, inner.best, inner.min_delta = 3, 0.5, -0.1
    assert there_and_back([inner], [live]) == [live]
    assert (live.wait, live.best, live.min_delta) == (3, 0.5, 0.1)


def test_variables_that_are_written_elsewhere_are_not_written_twice():
    layer = keras.layers.Dense(1)
    layer.build([None, 2])
    packer = Packer("callbacks/", in_state=lambda variable: True)
    assert packer.attribute([layer])["value"] == [{"__live__": 1}]
    assert packer.tensors == {}


def test_what_could_not_be_written_does_not_disturb_what_comes_after_it():
    packer = Packer("callbacks/")
    shared = []
    with pytest.raises(NotSerializableError):
        packer.attribute([{}, [], map(str, [])])
    packed = [packer.attribute(shared), packer.attribute([shared])]
    unpacker = Unpacker(packer.tensors)
    one, other = map(unpacker.unpack, packed)
    assert other[0] is one


def test_tensors_of_a_graph_are_not_written():
    with tf.Graph().as_default(), pytest.raises(TracedValueError):
        Packer("callbacks/").attribute([tf.constant(1.0)])


EVIL = [
    {"__object__": "os:system", "state": {}},
    {"__object__": "subprocess:Popen", "state": {"args": "true"}},
    {"__object__": "no.such.module:Thing", "state": {}},
    {"__enum__": "builtins:int", "name": "x"},
    {"__named__": "builtins:list", "items": []},
    {"__random__": "os", "state": None},
    {"__iterator__": "map", "args": []},
    {"__method__": "clear", "of": []},
]


@pytest.mark.parametrize("value", EVIL, ids=str)
def test_a_file_cannot_have_code_run(value):
    with pytest.raises((NotSerializableError, ValueError)):
        Unpacker({}).unpack(value)
