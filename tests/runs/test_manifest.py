import json
import threading

import pytest

from experiments_manager.runs import RunError, open_run
from experiments_manager.runs.locking import lock
from experiments_manager.runs.manifest import read_manifest, update_manifest

UPDATE_FOR_EVER = """
import itertools, sys
from experiments_manager.runs import open_run
run = open_run(sys.argv[1])
for epoch in itertools.count(1):
    run.update(epochs=epoch, metrics={"loss": [0.5] * 2000})
"""


def test_an_update_replaces_what_it_names_and_keeps_the_rest(run):
    run.update(epochs=3, metrics={"loss": 0.5, "accuracy": 0.9})
    run.update(metrics={"loss": 0.4})
    assert run.manifest["epochs"] == 3
    assert run.manifest["metrics"] == {"loss": 0.4}
    assert run.manifest["hparams"] == {"units": 10}


def test_nan_stays_valid_json(run):
    run.update(metrics={"loss": float("nan"), "scale": float("inf")})

    def refuse(text):
        raise ValueError(text)

    manifest = json.loads(run.manifest_file.read_text(), parse_constant=refuse)
    assert manifest["metrics"] == {"loss": "NaN", "scale": "Infinity"}


def test_the_schema_version_cannot_be_overwritten(run):
    run.update(schema_version=99)
    assert run.manifest["schema_version"] == 1


def test_an_older_manifest_without_newer_keys_is_read(run):
    run.manifest_file.write_text('{"schema_version": 1, "state": "finished"}')
    assert read_manifest(run.manifest_file) == {"schema_version": 1, "state": "finished"}
    assert not run.is_started


def test_updates_from_many_threads_are_all_kept_and_every_read_is_valid(run):
    done = threading.Event()
    problems = []

    def read():
        while not done.is_set():
            try:
                json.loads(run.manifest_file.read_text())
            except Exception as problem:
                problems.append(problem)

    def write(thread):
        for count in range(10):
            open_run(run.path).update(**{f"thread_{thread}_{count}": count})

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert problems == []
    assert sum(key.startswith("thread_") for key in run.manifest) == 80


def test_a_process_killed_while_it_updates_leaves_a_valid_manifest(run, start_process):
    process = start_process(UPDATE_FOR_EVER, run.path)
    while run.manifest["epochs"] < 20:
        assert process.poll() is None
    process.kill()
    process.wait()
    assert run.manifest["epochs"] >= 20
    with lock(run):
        assert sorted(file.name for file in run.path.iterdir()) == ["run.json", "run.lock"]


def test_a_full_disk_leaves_the_manifest_as_it_was(small_disk, full_disk):
    file = small_disk / "run.json"
    file.write_text('{"schema_version": 1, "epochs": 3}')
    full_disk()
    with pytest.raises(RunError, match=r"Cannot write .*run\.json: the disk is full"):
        update_manifest(file, {"epochs": 4, "text": "x" * 8192})
    assert read_manifest(file)["epochs"] == 3
    assert sorted(entry.name for entry in small_disk.iterdir()) == ["ballast", "run.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expected valid JSON"),
        (b'{"schema_version": 1, "sta', "Expected valid JSON"),
        (b"\xff\xfe{}", "Expected valid JSON"),
        (b"[" * 100_000, "Expected valid JSON"),
        (b'{"schema_version": 1, "overrides": [1]}', r"Expected `overrides` to be dict, got \[1\]"),
        (b'{"schema_version": 1, "settings_file": 5}', "Expected `settings_file` to be str or null, got 5"),
        (b'{"schema_version": 1, "resumed": null}', "Expected `resumed` to be list, got None"),
    ],
)
def test_a_damaged_manifest_is_named_with_its_remedy(run, content, said):
    run.manifest_file.write_bytes(content)
    with pytest.raises(RunError, match=f"run.json is damaged. {said}.* Restore the file from a copy of the run"):
        open_run(run.path)
