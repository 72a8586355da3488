"""The verbs for notebooks; everything here trains in this process."""

import subprocess
import sys
import threading

import pytest

import experiments_manager as em
from experiments_manager.runs import RunError
from experiments_manager.settings import Settings, SettingsError, UserCodeError


@pytest.fixture
def classification(settings_file):
    """A settings module that tells apart two classes."""
    return settings_file(
        """
        session_name = "classes"
        loss = "sparse_categorical_crossentropy"
        metrics = ["accuracy"]

        def dataset(split):
            x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
            return x, (x.sum(axis=1) > 0).astype(int)

        def model():
            return keras.Sequential([keras.Input([3]), keras.layers.Dense(2, activation="softmax")])
        """
    )


def test_importing_the_package_and_its_light_verbs_imports_no_tensorflow():
    code = (
        "import sys, experiments_manager as em\n"
        "light = set(sys.modules)\n"
        "em.load_settings, em.load_run, em.list_runs, em.compare_runs, em.train, em.resume, em.evaluate, em.check\n"
        "slow = {'tensorflow', 'keras', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'{slow}' if slow or 'pydantic' in light else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_verb_is_listed_and_explained():
    assert set(em.__all__) <= set(dir(em))
    for name in em.__all__:
        assert getattr(em, name).__doc__


def test_what_is_no_verb_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = em.trian


@pytest.mark.slow
def test_a_run_is_trained_resumed_listed_and_compared(settings_file, tmp_path, capfd):
    file = settings_file()
    first = em.train(file, working_dir=tmp_path / "runs", run_name="first", quiet=True)
    assert (first.state, first.epochs, first.run_dir) == ("finished", 2, tmp_path / "runs" / "first")
    more = em.resume(first.run_dir, overrides={"epochs": 3}, quiet=True)
    assert (more.state, more.epochs) == ("finished", 3)
    run = em.load_run(first.run_dir)
    assert run.manifest["overrides"] == {"epochs": 3}
    assert len(run.metrics_csv.read_text().splitlines()) == 4
    output = capfd.readouterr()
    assert output.out == ""
    assert "epoch" not in output.err

    second = em.train(file, overrides=["epochs=1"], working_dir=tmp_path / "runs", run_name="second", quiet=True)
    assert [row.name for row in em.list_runs(tmp_path / "runs", sort="epochs")] == ["second", "first"]
    assert em.compare_runs([first.run_dir, second.run_dir]).settings == {"epochs": [3, 1]}


@pytest.mark.slow
def test_loaded_settings_are_trained_as_they_are(settings_file, tmp_path):
    settings = em.load_settings(settings_file(), {"epochs": 1})
    assert isinstance(settings, Settings)
    assert em.train(settings, working_dir=tmp_path, quiet=True).epochs == 1
    with pytest.raises(TypeError, match="Give them to `load_settings`"):
        em.train(settings, overrides={"epochs": 2}, working_dir=tmp_path)


@pytest.mark.slow
def test_resume_auto_starts_a_run_and_goes_on_with_it_by_the_same_words(settings_file, tmp_path):
    words = {"working_dir": tmp_path / "runs", "run_name": "mine", "resume": "auto", "quiet": True}
    file = settings_file()
    first = em.train(file, **words)
    again = em.train(file, **words)
    assert first.run_dir == again.run_dir
    assert (first.epochs, again.epochs) == (2, 2)
    assert em.load_run(again.run_dir).manifest["resumed"] == []  # all was done
    more = em.train(file, overrides={"epochs": 3}, **words)
    assert (more.run_dir, more.epochs) == (first.run_dir, 3)
    assert len(em.load_run(again.run_dir).manifest["resumed"]) == 1


def test_resume_auto_without_a_name_is_refused_before_anything_is_made(settings_file, tmp_path):
    with pytest.raises(RunError, match="Add --run-name NAME"):
        em.train(settings_file(), working_dir=tmp_path / "runs", resume="auto")
    assert not (tmp_path / "runs").exists()


def test_progress_is_shown_unless_quiet_and_further_watchers_are_told(settings_file, tmp_path, recorder, capfd):
    runs = []
    result = em.train(settings_file(), working_dir=tmp_path, watchers=[recorder], on_run=runs.append)
    output = capfd.readouterr()
    assert "finished after 2 epochs" in output.err
    assert output.out == ""
    assert [report.epoch for report in recorder.epochs] == [1, 2]
    assert [run.path for run in runs] == [result.run_dir]


@pytest.mark.slow
def test_tensorboard_logs_are_written_only_where_the_settings_say_so(settings_file, tmp_path):
    with_logs = em.train(settings_file(), overrides={"tensorboard": True}, working_dir=tmp_path, quiet=True)
    without = em.train(settings_file(), overrides={"tensorboard": False}, working_dir=tmp_path, quiet=True)
    assert list((with_logs.run_dir / "logs").rglob("events.out.tfevents.*"))
    assert not (without.run_dir / "logs").exists()


def test_training_works_in_a_thread_where_signals_cannot_be_handled(settings_file, tmp_path):
    results = []
    file = settings_file()
    thread = threading.Thread(target=lambda: results.append(em.train(file, working_dir=tmp_path, quiet=True)))
    thread.start()
    thread.join()
    assert [result.state for result in results] == ["finished"]


@pytest.mark.slow
def test_a_classification_is_evaluated_with_a_picture_of_its_confusions(classification, tmp_path):
    result = em.train(classification, working_dir=tmp_path, quiet=True)
    metrics = em.evaluate(result.run_dir, "validation")
    assert metrics.keys() == {"loss", "accuracy"}
    picture = result.run_dir / "figures" / "confusion_validation.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_regression_is_evaluated_without_a_confusion_matrix(settings_file, tmp_path):
    result = em.train(settings_file(), working_dir=tmp_path, quiet=True)
    assert em.evaluate(em.load_run(result.run_dir)).keys() == {"loss"}
    assert not list((result.run_dir / "figures").glob("confusion*"))


def test_check_names_all_problems_and_a_dry_run_shows_one_batch_of_everything(settings_file, tmp_path, monkeypatch):
    file = settings_file()
    assert em.check(file) is None
    monkeypatch.chdir(tmp_path)
    seen = em.check(file, {"epochs": 1}, dry_run=True)
    assert seen.parameters == 4
    assert [line.split()[0] for line in seen.lines][:4] == ["devices", "train", "validation", "test"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["user"]
    with pytest.raises(SettingsError, match="epoks"):
        em.check(file, {"epoks": 1})


def test_a_hook_that_raises_is_a_users_error_here_too(settings_file, tmp_path):
    file = settings_file("def dataset(split):\n    raise OSError('disk on fire')\n")
    with pytest.raises(UserCodeError, match="dataset: OSError: disk on fire"):
        em.train(file, working_dir=tmp_path, quiet=True)
