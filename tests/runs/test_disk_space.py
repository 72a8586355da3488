from experiments_manager.common.machine.disk_space import reserved_space
from experiments_manager.runs import create_run


def test_on_a_full_disk_the_end_of_a_run_is_noted_in_the_space_set_aside(small_disk, full_disk):
    run = create_run(small_disk, "demo")
    with reserved_space(run.path):
        full_disk()
        run.finish("failed", error={"type": "OSError", "text": "No space left on device", "place": None})
    assert run.manifest["state"] == "failed"
    assert [path.name for path in run.path.iterdir()] == ["run.json"]


def test_a_full_disk_sets_nothing_aside_and_is_no_error(small_disk, full_disk):
    run = create_run(small_disk, "demo")
    full_disk()
    with reserved_space(run.path):
        assert run.manifest["state"] == "created"
    assert [path.name for path in run.path.iterdir()] == ["run.json"]
