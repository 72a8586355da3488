import os
import threading

import pytest

from experiments_manager.serving.models.threads import SMALL_MODEL_BYTES, Threads, lower_priority


def write_version(base_path, version, *sizes):
    folder = base_path / str(version) / "variables"
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        with (folder / f"variables.data-{number:05d}-of-{len(sizes):05d}").open("wb") as file:
            file.truncate(size)


@pytest.mark.parametrize(
    ("sizes", "intra_op"), [((1000,), 1), ((SMALL_MODEL_BYTES // 2, SMALL_MODEL_BYTES // 2), 0), ((), 1)]
)
def test_small_models_are_run_by_one_thread_each_and_large_ones_by_all(tmp_path, sizes, intra_op):
    write_version(tmp_path, 1, 10)
    write_version(tmp_path, 2, *sizes)
    assert Threads.for_models([tmp_path, tmp_path / "missing"]) == Threads(intra_op=intra_op, inter_op=-1)


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="this system has no priorities of threads")
def test_a_loading_thread_gives_way_and_the_others_do_not():
    found = []

    def load():
        lower_priority()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert found[0] >= before
    assert found[0] == 10 or before > 10
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
