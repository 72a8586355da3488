"""Memory that is used again once nobody holds it."""

import threading

import numpy as np
import pytest

from experiments_manager.kafka.records.buffers import ALIGNMENT, BufferPool

LARGE = 100_000


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(3,), (7, 5), (LARGE,), (0, 4), (1000, 100, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64", "complex128"])
def test_arrays_are_aligned_and_contiguous_whatever_their_size(shape, dtype):
    array = BufferPool().empty(shape, np.dtype(dtype))
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous and array.flags.writeable
    assert array.size == 0 or address(array) % ALIGNMENT == 0


def test_memory_is_used_again_once_the_array_is_gone():
    pool = BufferPool()
    first = pool.empty((LARGE,), np.dtype("uint8"))
    place = address(first)
    del first
    assert address(pool.empty((LARGE // 8,), np.dtype("float64"))) == place


def test_memory_is_not_used_again_while_a_view_of_it_is_held():
    pool = BufferPool()
    array = pool.empty((LARGE,), np.dtype("uint8"))
    array[:] = 1
    view = array.reshape(100, -1)[3:5].view("uint16")
    del array
    others = [pool.empty((LARGE,), np.dtype("uint8")) for _ in range(3)]
    for other in others:
        other[:] = 2
    assert (view == 257).all()


def test_arrays_held_are_kept_apart_beyond_what_the_pool_keeps():
    pool = BufferPool(most=2)
    arrays = [pool.empty((LARGE,), np.dtype("uint8")) for _ in range(5)]
    for number, array in enumerate(arrays):
        array[:] = number
    assert [set(array) for array in arrays] == [{0}, {1}, {2}, {3}, {4}]


def test_several_threads_never_share_memory():
    pool, wrong = BufferPool(), []

    def use(number):
        for _ in range(300):
            array = pool.empty((LARGE,), np.dtype("uint8"))
            array[:] = number
            wrong.extend(set(array[::5000]) - {number})

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
