"""A set that can be filled again behaves as the one that it stands for."""

import random
import threading

import pytest

from experiments_manager.compat.python import can_be_filled_again, target_of


def popped(found):
    found.pop()
    return found


def shrunk(count):
    found = set(range(count))
    found.difference_update(range(0, count, 2))
    return found


@pytest.mark.parametrize("elements", [set(), {1, 2, 3}, set(range(1000)), frozenset([4, 5])], ids=str)
def test_a_set_that_was_only_filled_can_be_filled_again(elements):
    assert can_be_filled_again(elements)


@pytest.mark.parametrize(
    "elements",
    [popped({1, 2, 3}), shrunk(3000), shrunk(6)],
    ids=["popped", "large once", "removed"],
)
def test_a_set_from_which_elements_were_taken_cannot(elements):
    assert not can_be_filled_again(elements)


def test_whatever_is_done_with_both_a_set_that_can_be_filled_again_gives_the_same():
    draw, checked = random.Random(3), 0
    for _ in range(3000):
        original = set()
        for _ in range(draw.randrange(30)):
            number = draw.randrange(60)
            draw.choice([original.add, original.add, original.add, original.discard])(number)
        if not can_be_filled_again(original):
            continue
        again, checked = set(), checked + 1
        again.update([*original])
        for _ in range(30):
            number = draw.randrange(60)
            if draw.random() < 0.3 and original:
                assert original.pop() == again.pop()
            else:
                original.add(number), again.add(number)
            assert list(original) == list(again)
    assert checked > 300


def test_the_function_of_a_thread_is_known_while_it_runs():
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)
    thread.start()
    assert target_of(thread) == ends.wait
    ends.set()
    thread.join()
    assert target_of(thread) is None
