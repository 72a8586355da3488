import pytest

from experiments_manager.doctor.finding import State
from experiments_manager.doctor.machine import memory, processors


@pytest.fixture
def meminfo(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n")
    return file


def test_without_a_control_group_the_cores_of_the_process_count(tmp_path):
    assert processors(tmp_path).state is State.OK


def test_a_control_group_with_less_than_the_cores_is_told_with_the_threads_to_use(tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    found = processors(tmp_path)
    assert found.text.endswith("the control group allows 0.5 at a time")
    assert "OMP_NUM_THREADS=1," in found.remedy


@pytest.mark.parametrize("text", ["max 100000\n", "800000000 100000\n"])
def test_a_control_group_with_more_than_the_cores_is_no_limit(tmp_path, text):
    (tmp_path / "cpu.max").write_text(text)
    assert processors(tmp_path).state is State.OK


def test_the_first_version_of_control_groups_is_understood(tmp_path, meminfo):
    for name, text in (
        ("cpu/cpu.cfs_quota_us", "50000"),
        ("cpu/cpu.cfs_period_us", "100000"),
        ("memory/memory.limit_in_bytes", str(4 * 2**30)),
        ("memory/memory.usage_in_bytes", str(2**30)),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert "allows 0.5" in processors(tmp_path).text
    assert memory(tmp_path, meminfo).text == "3.0 GiB available; the control group allows 4.0 GiB"


def test_memory_is_that_of_the_machine_where_no_group_limits_it(tmp_path, meminfo):
    found = memory(tmp_path, meminfo)
    assert (found.state, found.text) == (State.OK, "16.0 GiB available")


def test_too_little_memory_in_the_control_group_is_told(tmp_path, meminfo):
    (tmp_path / "memory.max").write_text(str(2 * 2**30))
    (tmp_path / "memory.current").write_text(str(2**30))
    assert memory(tmp_path, meminfo).state is State.NOTE


def test_a_system_that_does_not_tell_its_memory_is_no_fault(tmp_path):
    assert memory(tmp_path, tmp_path / "none").state is State.NOTE
