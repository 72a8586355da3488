"""What `submit` makes of a command line."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from experiments_manager.cli.commands.submit import training_of
from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.submission import submit
from experiments_manager.settings import SettingsError

SETTINGS = """
session_name = "small"
hparams = {"rate": 0.1}
loss = "mse"
learning_rate = hparams["rate"]
cluster = {"time": "2:00:00"}


def dataset(split):
    import tensorflow


def model():
    import tensorflow
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "mysettings.py").write_text(SETTINGS)
    return tmp_path


def dry(*command, arrays=(), stage_data=(), **given):
    return submit(command, given, training_of, arrays=arrays, stage_data=stage_data, dry_run=True)


def test_a_dry_run_writes_nothing_and_knows_the_run_folder(folder):
    made = dry("train", "mysettings.py", "--set", "rate=0.2", "--working-dir", "runs", "--quiet", mem="4G")
    assert sorted(path.name for path in folder.iterdir()) == ["mysettings.py"]
    (run,) = made.runs
    assert run.parent == folder / "runs"
    assert run.name.startswith("small_rate0.2_")
    assert made.job.commands == (("resume", str(run), "--set", "rate=0.2", "--quiet"),)
    assert (made.options.time, made.options.mem) == ("2:00:00", "4G")


def test_a_grid_gives_a_run_for_each_combination(folder):
    made = dry("train", "mysettings.py", arrays=["rate=0.1,0.2", "epochs=3,4"])
    assert [command[3:] for command in made.job.commands] == [
        ("rate=0.1", "--set", "epochs=3"),
        ("rate=0.1", "--set", "epochs=4"),
        ("rate=0.2", "--set", "epochs=3"),
        ("rate=0.2", "--set", "epochs=4"),
    ]


def test_a_file_gives_a_task_for_each_line(folder):
    (folder / "tasks").write_text("# the rates\n--set rate=0.3 --run-name third\n\n--set rate=0.4\n")
    made = dry("train", "mysettings.py", arrays=["tasks"])
    assert made.runs[0].name == "third"
    assert made.job.commands[1][3:] == ("rate=0.4",)


@pytest.mark.parametrize(
    ("command", "arrays", "sentence"),
    [
        ((), (), "There is nothing to submit"),
        (("train", "mysettings.py"), ("rate=",), "expected NAME=V1,V2"),
        (("train", "mysettings.py"), ("nowhere",), "it cannot be read"),
    ],
)
def test_what_cannot_be_submitted_is_one_sentence(folder, command, arrays, sentence):
    with pytest.raises(ClusterError, match=sentence):
        dry(*command, arrays=arrays)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [((), "Missing argument 'SETTINGS'"), (("mysettings.py", "--quite"), "No such option"),
     (("mysettings.py", "--resume", "maybe"), "'maybe' is not one of")],
)  # fmt: skip
def test_what_train_would_refuse_is_refused_before_it_waits_for_hours(folder, words, sentence):
    with pytest.raises(click.UsageError) as caught:
        dry("train", *words)
    assert sentence in caught.value.format_message()


def test_options_of_train_that_resume_takes_as_well_are_passed_on(folder):
    words = ["--quiet", "--stage-data", "a b", "--set=rate=0.2", "--stage-data=c", "--resume=auto", "--run-name", "it"]
    (command,) = dry("train", *words, "mysettings.py").job.commands
    assert command[2:] == ("--set", "rate=0.2", "--quiet", "--stage-data", "a b", "--stage-data", "c")


def test_a_settings_file_that_is_wrong_is_refused_before_it_waits_for_hours(folder):
    (folder / "mysettings.py").write_text(SETTINGS.replace("loss =", "los ="))
    with pytest.raises(SettingsError, match="loss"):
        dry("train", "mysettings.py")


def test_other_commands_are_submitted_as_they_are(folder):
    made = dry("sweep", "mysweep.py", "--trials", "5", time="30")
    assert made.job.commands == (("sweep", "mysweep.py", "--trials", "5"),)
    assert made.runs == ()
    assert made.job.folder.parent == folder / "jobs"
    assert made.job.name == "mysweep"
    assert dry("runs", ".").job.name == "runs"  # the folder's path has no last part


def test_data_to_be_staged_is_copied_by_the_job_and_seen_by_its_image(folder):
    (folder / "images").mkdir()
    given = {"stage_data": [Path("images")], "image": "/x.sif", "stage_dir": "$LOCAL_SCRATCH"}
    made = dry("train", "mysettings.py", **given)
    assert made.job.commands[0][-2:] == ("--stage-data", str(folder / "images"))
    assert f"--bind {folder / 'images'} " in made.script
    assert 'export APPTAINER_BIND="${APPTAINER_BIND:+$APPTAINER_BIND,}$LOCAL_SCRATCH"' in made.script
    with_default = dry("train", "mysettings.py", **given | {"stage_dir": None}).script
    assert '$APPTAINER_BIND,}${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"' in with_default
    assert "APPTAINER_BIND" not in dry("train", "mysettings.py", image="/x.sif").script


def test_data_that_cannot_be_staged_is_refused(folder):
    with pytest.raises(
        ClusterError, match=r"nowhere: it does not exist\. Expected a folder or file that the nodes see"
    ):
        dry("train", "mysettings.py", stage_data=[Path("nowhere")])
    with pytest.raises(ClusterError, match=r"--stage-data is for train and resume\. Got sweep"):
        dry("sweep", "mysweep.py", stage_data=[folder])


@pytest.mark.parametrize("command", [("train", "mysettings.py"), ("sweep", "mysweep.py")])
@pytest.mark.parametrize("name", ["two\nlines", "a/b", "bell\a"])
def test_a_name_that_would_break_the_script_is_refused_and_leaves_nothing(folder, command, name):
    with pytest.raises(ClusterError, match="name is wrong. Expected one line without slashes"):
        submit(command, {"name": name}, training_of)
    assert sorted(path.name for path in folder.iterdir()) == ["mysettings.py"]


@pytest.mark.parametrize("command", [("train", "mysettings.py"), ("sweep", "mysweep.py")])
def test_an_image_that_is_not_there_is_refused_before_anything_is_made(folder, command):
    with pytest.raises(ClusterError, match=r"image: there is no nosuch\.sif"):
        submit(command, {"image": "nosuch.sif"}, training_of)
    assert sorted(path.name for path in folder.iterdir()) == ["mysettings.py"]


REFUSAL = "sbatch: error: invalid partition specified: none\nsbatch: error: Batch job submission failed: Invalid one"


@pytest.mark.parametrize("command", [("train", "mysettings.py"), ("sweep", "mysweep.py")])
@pytest.mark.parametrize(
    ("said", "sentence", "left"),
    [
        (REFUSAL, "Cannot submit a job: invalid partition specified: none.$", False),
        ("sbatch: error: Batch job submission failed: Time limit", "submission failed: Time limit.$", False),
        ("sbatch: error: Socket timed out on send/recv operation", "Socket timed out", True),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_no_folder_unless_the_job_may_be_there(
    folder, monkeypatch, command, said, sentence, left
):
    (folder / "bin").mkdir()
    (folder / "bin" / "sbatch").write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit 1\n")
    (folder / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    with pytest.raises(ClusterError, match=sentence):
        submit(command, {"name": "it"}, training_of)
    made = [path for parent in ("jobs", "experiments", "runs") for path in folder.glob(f"{parent}/*")]
    assert bool(made) == left


def test_a_dry_run_needs_no_tensorflow(folder):
    code = (
        "import sys; from experiments_manager.cli.main import run;"
        "code = run(['submit', '--dry-run', '--', 'train', 'mysettings.py']);"
        "sys.exit(code or 'tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash\n# experiments_manager resume ")
