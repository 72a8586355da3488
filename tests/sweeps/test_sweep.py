"""A sweep, from its file to what it leaves."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys

import pytest

import experiments_manager as em
from experiments_manager.runs import Run, RunError, lock, open_run
from experiments_manager.settings.problems import SettingsError
from experiments_manager.sweeps.driver import MOST_BREAKS, Observer
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.state.journal import read_journal
from experiments_manager.sweeps.sweep import SweepOptions, run_sweep
from experiments_manager.sweeps.trials.fork_server import ForkServer
from experiments_manager.sweeps.trials.trial_watcher import ObjectiveError
from tests.helpers.waiting import wait_until
from tests.helpers.warm_processes import warm_run

pytestmark = pytest.mark.slow


_SERVER = []


@pytest.fixture(scope="module", autouse=True)
def server():
    """One warm process for the trials of all tests here."""
    _SERVER.append(ForkServer(1))
    yield
    _SERVER.pop().close()


def run(file, **options):
    return run_sweep(file, SweepOptions(working_dir=file.parent / "sweeps", **options), server=_SERVER[0])


def rows_of(result):
    with (result.sweep_dir / "trials.csv").open() as stream:
        return list(csv.DictReader(stream))


def what_was_found(result):
    """Gives what must not depend on time: the points, states and values of all trials."""
    return [{name: cell for name, cell in row.items() if name != "seconds"} for row in rows_of(result)]


@pytest.fixture(scope="module")
def finished(write_sweep, tmp_path_factory):
    """A sweep of four trials, two at a time."""
    file = write_sweep(tmp_path_factory.mktemp("finished"), "parallel = 2\nstart_from = [{}]\n", "export = True\n")
    return file, run(file)


@pytest.fixture(scope="module")
def one_by_one(write_sweep, tmp_path_factory):
    """The same sweep, one trial at a time."""
    file = write_sweep(tmp_path_factory.mktemp("one_by_one"))
    return file, run(file)


def test_every_trial_is_an_ordinary_run(finished):
    _, result = finished
    for row in rows_of(result):
        manifest = open_run(result.sweep_dir / "trials" / row["run"]).manifest
        assert manifest["state"] == "finished"
        assert manifest["best"]["value"] == float(row["val_loss"])
        assert manifest["hparams"]["learning_rate"] == float(row["learning_rate"])
        assert manifest["hparams"]["units"] == int(row["units"])
    assert len(em.list_runs(result.sweep_dir / "trials")) == 4


def test_the_best_trial_is_told_with_the_command_that_repeats_it(finished):
    _, result = finished
    best = min(rows_of(result), key=lambda row: float(row["val_loss"]))
    assert result.best["number"] == int(best["trial"])
    assert f"--set hparams.learning_rate={best['learning_rate']}" in result.best["command"]
    assert result.trials == {"finished": 4}


def test_the_point_of_the_user_is_tried_first(finished):
    _, result = finished
    first = rows_of(result)[0]
    assert (first["by"], first["learning_rate"], first["units"]) == ("start_from", "0.05", "4")


def test_the_best_model_alone_is_exported(finished):
    _, result = finished
    exported = [path.parent.parent.name for path in result.sweep_dir.glob("trials/*/exported_models/*")]
    assert exported == [f"trial_{result.best['number']:05d}"]
    assert result.best["exported_model"].endswith(open_run(result.best["run_dir"]).manifest["exported_model"])


def test_the_best_settings_train_to_the_very_same_value(finished, tmp_path):
    _, result = finished
    again = em.train(result.sweep_dir / "best_settings.py", working_dir=tmp_path, quiet=True)
    assert again.best["value"] == result.best["values"]["val_loss"]


def test_the_same_seed_gives_the_same_trials_one_by_one_and_from_a_single_process(one_by_one, write_sweep, tmp_path):
    _, expected = one_by_one
    together = run(write_sweep(tmp_path, "trials_per_process = 4\n"))
    assert what_was_found(together) == what_was_found(expected)
    metrics = [sorted((sweep.sweep_dir / "trials").glob("*/metrics.csv")) for sweep in (expected, together)]
    assert [file.read_bytes() for file in metrics[0]] == [file.read_bytes() for file in metrics[1]]


def test_a_sweep_that_is_there_is_not_begun_again(finished):
    file, _ = finished
    with pytest.raises(SweepError, match="There is a sweep in .* already.*Add --resume"):
        run(file)


def test_more_trials_are_added_to_a_finished_sweep_and_are_those_of_a_longer_one(one_by_one, write_sweep, tmp_path):
    longer = run(write_sweep(tmp_path, "max_trials = 6\n"))
    file, before = one_by_one
    extended = run(file, trials=6, resume=True)
    assert what_was_found(extended) == what_was_found(longer)
    assert before.trials == {"finished": 4}
    assert extended.trials == {"finished": 6}


def test_proposals_follow_from_the_order_of_completions_in_the_journal(finished):
    from experiments_manager.sweeps.replay import replayed

    _, result = finished
    events = read_journal(result.sweep_dir / "journal.jsonl")
    proposed = {event["trial"]: event["point"] for event in events if event["event"] == "proposed"}
    assert replayed(result.sweep_dir) == proposed
    assert len(proposed) == 4


def test_a_sweep_that_was_asked_to_stop_goes_on_to_the_same_end(one_by_one, write_sweep, tmp_path):
    file = write_sweep(tmp_path)
    epochs = []

    class Listener(Observer):
        def on_epoch(self, trial, epoch, of, value):
            epochs.append((trial, epoch))

    options = SweepOptions(working_dir=tmp_path / "sweeps", resume=True)
    stopped = run_sweep(
        file,
        options,
        server=_SERVER[0],
        should_stop=lambda: (1, 1) in epochs,
        make_observers=lambda *told: contextlib.nullcontext([Listener()]),
    )
    assert (stopped.state, stopped.report) == ("interrupted", None)
    again = run_sweep(file, options, server=_SERVER[0])
    assert again.state == "finished"
    assert what_was_found(again)[:4] == what_was_found(one_by_one[1])[:4]


def test_two_processes_do_not_run_the_same_sweep_at_once(write_sweep, tmp_path):
    file = write_sweep(tmp_path)
    folder = tmp_path / "sweeps" / "line"
    folder.mkdir(parents=True)
    with lock(Run(folder)), pytest.raises(RunError, match="is in use"):
        run(file)


def test_settings_that_vary_stand_beside_the_hparams_of_a_trial(write_sweep, tmp_path):
    sweep = "space = {'batch_size': hp.choice('batch_size', [8, 16])}\nmax_trials = 1\n"
    result = run(write_sweep(tmp_path, sweep))
    settings = open_run(result.best["run_dir"]).manifest["settings"]
    assert settings["hparams_ext"] == result.best["overrides"]
    assert settings["batch_size"] == result.best["overrides"]["batch_size"]


def test_names_and_values_that_the_settings_file_does_not_take_are_problems_of_the_sweep_file(write_sweep, tmp_path):
    file = write_sweep(
        tmp_path,
        """
        space["learnin_rate"] = hp.uniform("x", 0, 1)
        space["batch_size"] = hp.uniform("batch_size", -2, -1)
        overrides = {
            "epoch": 3,
        }
        """,
    )
    with pytest.raises(SettingsError) as caught:
        run(file)
    told = {problem.name: problem for problem in caught.value.problems}
    assert set(told) == {"learnin_rate", "batch_size", "epoch"}
    assert "Did you mean `hparams.learning_rate`?" in told["learnin_rate"].text
    assert "Did you mean `epochs`?" in told["epoch"].text
    assert file.read_text().splitlines()[told["epoch"].line - 1] == '    "epoch": 3,'
    assert not (tmp_path / "sweeps").exists()


def test_an_objective_that_is_no_column_ends_the_sweep_with_the_names_there_are(write_sweep, tmp_path):
    with pytest.raises(ObjectiveError, match="`val_los` is no column of metrics.csv. Expected one of loss, val_loss"):
        run(write_sweep(tmp_path, "objective = 'val_los'\n"))


def test_a_trial_that_fails_has_its_reason_and_the_sweep_goes_on(write_sweep, tmp_path):
    crashes = """
    import os
    make = model

    def model(hparams):
        if hparams["crash"] == "raise":
            raise ValueError("no such model")
        if hparams["crash"] == "abort":
            os.abort()
        if hparams["crash"] == "exit":
            os._exit(3)
        if hparams["crash"] == "interrupt":
            raise KeyboardInterrupt
        if hparams["crash"] == "leave":
            raise SystemExit(0)
        if hparams["crash"] == "group":
            raise type("Odd", (BaseException,), {})("KeyboardInterrupt inside")
        if hparams["crash"] == "kill":
            os.kill(os.getpid(), 9)
        if hparams["crash"] == "hang":
            import time
            time.sleep(1000)
        if hparams["crash"] == "hoard":
            hoard = [bytearray(b"x" * 2**24) for _ in range(200)]
            import time
            time.sleep(1000)
        if hparams["crash"] == "nan":
            return keras.Sequential([keras.Input([3]), keras.layers.Rescaling(float("nan")), keras.layers.Dense(1)])
        return make(hparams)
    """
    sweep = """
    ends = "no raise abort exit interrupt leave group kill hang hoard nan".split()
    space = {"crash": hp.choice("crash", ends)}
    algorithm = "grid"
    max_trials = 11
    parallel = 2
    trial_timeout = 60
    memory_limit = "2 GiB"
    """
    result = run(write_sweep(tmp_path, sweep, crashes))
    reasons = {row["crash"]: row["reason"] for row in rows_of(result)}
    assert result.trials == {"finished": 1, "failed": 10}
    assert reasons["no"] == ""
    assert "ValueError: no such model" in reasons["raise"]
    assert reasons["abort"] == "its process was ended by SIGABRT"
    assert reasons["exit"] == "its process ended with exit code 3"
    assert "KeyboardInterrupt" in reasons["interrupt"]
    assert "SystemExit" in reasons["leave"]
    assert "KeyboardInterrupt" in reasons["group"]
    assert f"SIGKILL, {MOST_BREAKS} times without a further epoch in between" in reasons["kill"]
    assert reasons["hang"] == "no progress for 60 s (trial_timeout)"
    assert "memory, more than 2048 MiB (memory_limit)" in reasons["hoard"]
    assert "NaN" in reasons["nan"]


def test_a_fork_server_that_is_killed_is_replaced_and_the_trials_go_on(one_by_one, write_sweep, tmp_path):
    file = write_sweep(tmp_path)
    with contextlib.closing(ForkServer(1)) as server:
        killed = []

        def kill():
            killed.append(server.process_id)
            os.kill(server.process_id, signal.SIGKILL)

        class Killer(Observer):
            def on_epoch(self, trial, epoch, of, value):
                if len(killed) == 1 and (trial, epoch) == (1, 1):
                    kill()

        kill()  # while it imports
        options = SweepOptions(working_dir=tmp_path / "sweeps")
        result = run_sweep(
            file, options, server=server, make_observers=lambda *told: contextlib.nullcontext([Killer()])
        )
        assert len({*killed, server.process_id}) == 3
    assert what_was_found(result) == what_was_found(one_by_one[1])[:4]


def test_a_failed_trial_is_run_again_on_request(write_sweep, tmp_path):
    settings = """
    from pathlib import Path
    make = model

    def model(hparams):
        if not Path(__file__).with_name("repaired").exists():
            raise ValueError("not yet")
        return make(hparams)
    """
    file = write_sweep(tmp_path, "max_trials = 2\n", settings)
    assert run(file).trials == {"failed": 2}
    (tmp_path / "repaired").touch()
    assert run(file, resume=True).trials == {"failed": 2}
    result = run(file, resume=True, retry_failed=True)
    assert result.trials == {"finished": 2}
    assert [row["run"] for row in rows_of(result)] == ["trial_00000-2", "trial_00001-2"]


def test_a_function_may_be_the_objective_and_is_minimised(write_sweep, tmp_path):
    objective = """
    def objective(run):
        return run.manifest["hparams"]["units"]
    algorithm = "grid"
    space = {"units": hp.choice("units", [5, 3, 4])}
    """
    result = run(write_sweep(tmp_path, objective))
    assert result.best["values"] == {"objective": 3.0}
    assert result.best["overrides"] == {"units": 3}


def test_several_objectives_give_a_pareto_front(write_sweep, tmp_path):
    result = run(write_sweep(tmp_path, "objective = ['val_loss', 'loss']\nmax_trials = 5\n"))
    rows = [(float(row["val_loss"]), float(row["loss"])) for row in rows_of(result)]
    front = {(trial["values"]["val_loss"], trial["values"]["loss"]) for trial in result.front}
    beaten = {row for row in rows if any(a <= row[0] and b <= row[1] and (a, b) != row for a, b in rows)}
    assert front == set(rows) - beaten


def test_successive_halving_trains_the_best_on_from_their_checkpoints(write_sweep, tmp_path):
    sweep = "prune = {'method': 'asha', 'min_epochs': 1, 'reduction': 2}\nmax_trials = 8\noverrides = {'epochs': 4}\n"
    result = run(write_sweep(tmp_path, sweep))
    epochs = sorted(int(row["epochs"]) for row in rows_of(result))
    assert len(epochs) == 8
    assert epochs[0] == 1
    assert epochs[-1] == 4
    assert sum(epochs) < 8 * 4
    best = open_run(result.best["run_dir"])
    assert len(best.metrics_csv.read_text().splitlines()) == 5
    alone = em.train(
        tmp_path / "mysettings_line.py",
        overrides={"epochs": 4, **{f"hparams.{name}": value for name, value in result.best["overrides"].items()}},
        working_dir=tmp_path,
        run_name="alone",
        quiet=True,
    )
    assert (alone.run_dir / "metrics.csv").read_bytes() == best.metrics_csv.read_bytes()


def test_the_median_rule_ends_bad_trials_early(write_sweep, tmp_path):
    sweep = """
    prune = {"method": "median", "warmup_epochs": 0, "min_trials": 2}
    algorithm = "grid"
    space = {"learning_rate": hp.choice("rate", [0.1, 0.05, 1e-7])}
    overrides = {"epochs": 3}
    """
    result = run(write_sweep(tmp_path, sweep))
    last = rows_of(result)[2]
    assert (last["state"], last["epochs"]) == ("pruned", "1")
    assert "worse than the median" in last["reason"]


def test_a_target_or_no_progress_ends_a_sweep(write_sweep, tmp_path):
    reached = run(write_sweep(tmp_path / "target", "stop_when = {'target': 100.0}\n"))
    assert reached.reason == "the target 100 is reached"
    assert reached.trials == {"finished": 1}
    stuck = run(write_sweep(tmp_path / "stuck", "stop_when = {'no_progress': 1}\nmax_trials = 20\n"))
    assert stuck.reason == "no progress in 1 trials"


def test_results_of_an_earlier_sweep_are_known_from_the_start(finished, write_sweep, tmp_path):
    _, earlier = finished
    result = run(write_sweep(tmp_path, f"start_from = {str(earlier.sweep_dir)!r}\nmax_trials = 1\n"))
    assert result.trials == {"known": 4, "finished": 1}
    known = {row["val_loss"] for row in rows_of(result) if row["state"] == "known"}
    assert known == {row["val_loss"] for row in rows_of(earlier)}


def test_a_wider_space_keeps_what_was_found(write_sweep, tmp_path):
    file = write_sweep(tmp_path, "max_trials = 2\n")
    before = what_was_found(run(file))
    file = write_sweep(
        tmp_path, "max_trials = 3\nspace['learning_rate'] = hp.loguniform('learning_rate', log(1e-4), 0)\n"
    )
    after = run(file, resume=True)
    assert what_was_found(after)[:2] == before
    assert after.trials == {"finished": 3}
    assert sorted(path.name for path in (after.sweep_dir / "sweep_files").iterdir()) == ["sweep_1.py", "sweep_2.py"]


def test_another_objective_is_refused_for_a_sweep_that_has_begun(write_sweep, tmp_path):
    file = write_sweep(tmp_path, "max_trials = 1\n")
    run(file)
    write_sweep(tmp_path, "objective = 'loss'\n")
    with pytest.raises(SweepError, match="The objective has changed"):
        run(file, resume=True)


def test_the_command_prints_what_was_found_as_json(write_sweep, tmp_path):
    file = write_sweep(tmp_path, "max_trials = 1\n")
    command = [
        sys.executable,
        "-m",
        "experiments_manager",
        "sweep",
        str(file),
        "--json",
        "--working-dir",
        str(tmp_path),
    ]
    told = warm_run(command)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["best"]["number"] == 0
    assert "trial 0 of 1 finished" in told.stderr


def test_a_signal_ends_the_command_with_the_one_that_goes_on_and_no_process_is_left(write_sweep, tmp_path):
    file = write_sweep(tmp_path, "parallel = 2\noverrides = {'epochs': 100_000}\n")
    command = [sys.executable, "-m", "experiments_manager", "sweep", str(file), "--working-dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        metrics = tmp_path / "line" / "trials"
        wait_until(lambda: process.poll() is not None or len(list(metrics.glob("*/metrics.csv"))) == 2, 300)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 75, said
    assert f"To go on: experiments_manager sweep {file} --resume --working-dir {tmp_path}" in said
    states = {run.manifest["state"] for run in map(open_run, metrics.iterdir())}
    assert states == {"interrupted"}
    assert not list(metrics.glob("*/run.lock"))
