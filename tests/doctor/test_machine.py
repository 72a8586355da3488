import pytest

from experiments_manager.doctor.finding import FindingState
from experiments_manager.doctor.machine import memory, processors


@pytest.fixture
def meminfo(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n")
    return file


def test_without_a_control_group_the_cores_of_the_process_count(tmp_path):
    assert processors(tmp_path).state is FindingState.OK


def test_a_control_group_with_less_than_the_cores_is_told_with_the_threads_to_use(tmp_path):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    found = processors(tmp_path)
    assert found.text.endswith("the control group allows 0.5 at a time")
    assert "OMP_NUM_THREADS=1," in found.remedy


@pytest.mark.parametrize("text", ["max 100000\n", "800000000 100000\n"])
def test_a_control_group_with_more_than_the_cores_is_no_limit(tmp_path, text):
    (tmp_path / "cpu.max").write_text(text)
    assert processors(tmp_path).state is FindingState.OK


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
    assert (found.state, found.text) == (FindingState.OK, "16.0 GiB available")


def test_too_little_memory_in_the_control_group_is_told(tmp_path, meminfo):
    (tmp_path / "memory.max").write_text(str(2 * 2**30))
    (tmp_path / "memory.current").write_text(str(2**30))
    assert memory(tmp_path, meminfo).state is FindingState.NOTE


def test_a_system_that_does_not_tell_its_memory_is_no_fault(tmp_path):
    assert memory(tmp_path, tmp_path / "none").state is FindingState.NOTE


@pytest.mark.parametrize(
    ("own", "folder", "names"),
    [
        ("0::/slurm/job_7/step_0\n", "slurm/job_7", ("cpu.max", "memory.max", "memory.current", "inactive_file")),
        (
            "5:cpu,cpuacct:/slurm/job_7\n4:memory:/slurm/job_7\n1:name=systemd:/\n",
            "{}/slurm/job_7",
            ("cpu.cfs_quota_us", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_the_limits_of_a_job_count(tmp_path, own, folder, names):
    (tmp_path / "own").write_text(own)
    (tmp_path / "meminfo").write_text(f"MemAvailable: {64 * 2**20} kB\n")
    cpu_group, memory_group = (tmp_path / folder.format(name) for name in ("cpu", "memory"))
    for place in (cpu_group, memory_group):
        place.mkdir(parents=True, exist_ok=True)
    cores, limit, used, cached = names
    (cpu_group / cores).write_text("50000 100000" if cores == "cpu.max" else "50000")
    (cpu_group / "cpu.cfs_period_us").write_text("100000")
    (memory_group / limit).write_text(str(8 * 2**30))
    (memory_group / used).write_text(str(7 * 2**30))
    (memory_group / "memory.stat").write_text(f"anon 1\n{cached} {4 * 2**30}\n")
    assert "the control group allows 0.5 at a time" in processors(tmp_path, tmp_path / "own").text
    found = memory(tmp_path, tmp_path / "meminfo", tmp_path / "own")
    assert found.text == "5.0 GiB available; the control group allows 8.0 GiB"
