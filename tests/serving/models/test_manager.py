import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

from experiments_manager.export.versions import list_versions
from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.models import manager
from experiments_manager.serving.models.loader import LoadingOptions
from experiments_manager.serving.models.manager import ModelManager
from experiments_manager.serving.models.signatures import ModelRef
from experiments_manager.serving.models.version_policy import LabelRule, ModelConfig, State, VersionPolicy
from tests.helpers.waiting import wait_until


class FakeModel:
    """A version without TensorFlow: a folder with a file `content`, which cannot be loaded where that says `broken`."""

    def __init__(self, path):
        self.content = (path / "content").read_text()
        if "broken" in self.content:
            raise ValueError(f"the content is {self.content}")
        self.closed = False

    def close(self):
        self.closed = True


class ModelRegistry:
    """A manager with the changes that it told of, and ways to wait for them."""

    def __init__(self, configs, load=FakeModel, **options):
        self.changed = threading.Condition()
        self.events = []
        loading = {"poll_seconds": 0.01, "max_load_retries": 0, "retry_seconds": 0.01, **options.pop("loading", {})}
        self.manager = ModelManager(configs, load, options=LoadingOptions(**loading), on_change=self._note, **options)
        self.manager.start()

    def _note(self, name, status):
        with self.changed:
            self.events.append((name, status.version, status.state, status.message))
            self.changed.notify_all()

    def wait_for(self, version, state, name="model"):
        def happened():
            return any(event[:3] == (name, version, state) for event in self.events)

        with self.changed:
            assert self.changed.wait_for(happened, 60), self.events

    def states(self, name="model"):
        return {status.version: status.state for status in self.manager.statuses(ModelRef(name))}

    def order(self):
        return [(version, state) for _, version, state, _ in self.events]


@pytest.fixture
def base_path(tmp_path):
    path = tmp_path / "models"
    path.mkdir()
    return path


def add(base_path, version, content="fine"):
    stage = base_path / f".stage-{version}"
    stage.mkdir(parents=True)
    (stage / "content").write_text(content)
    stage.rename(base_path / str(version))


def remove(base_path, version):
    (base_path / str(version)).rename(base_path / f".gone-{version}")


@pytest.fixture
def serve(base_path):
    """Starts a manager of the model `model`; every one is closed at the end."""
    opened = []

    def start(policy=None, labels=None, configs=None, **options):
        config = ModelConfig("model", base_path, policy or VersionPolicy(), labels or {})
        opened.append(ModelRegistry([config] if configs is None else configs, **options))
        return opened[-1]

    yield start
    for books in opened:
        books.manager.close()


def test_the_newest_version_is_served_and_others_are_not(serve, base_path):
    for version in (1, 2, 10):
        add(base_path, version)
    books = serve()
    assert books.manager.wait_until_ready(10)
    with books.manager.lease(ModelRef("model")) as lease:
        assert (lease.name, lease.version) == ("model", 10)
    with pytest.raises(ServingError, match=r"^Servable not found for request: Specific\(model, 2\)$") as refused:
        books.manager.lease(ModelRef("model", 2))
    assert refused.value.code == Code.NOT_FOUND


def test_a_new_version_is_loaded_before_the_old_one_goes(serve, base_path):
    add(base_path, 1)
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    add(base_path, 2)
    books.wait_for(1, State.END)
    order = books.order()
    assert order.index((2, State.AVAILABLE)) < order.index((1, State.UNLOADING)) < order.index((1, State.END))
    assert books.states() == {1: State.END, 2: State.AVAILABLE}


def test_a_request_in_flight_finishes_on_its_version(serve, base_path):
    add(base_path, 1)
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    with books.manager.lease(ModelRef("model")) as lease:
        add(base_path, 2)
        books.wait_for(1, State.UNLOADING)
        assert not lease.model.closed
        assert books.states()[1] == State.UNLOADING
        with books.manager.lease(ModelRef("model")) as newer:
            assert newer.version == 2
    books.wait_for(1, State.END)
    assert lease.model.closed


def test_a_version_that_fails_is_reported_with_its_reason_and_replaces_nothing(serve, base_path):
    add(base_path, 1)
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    add(base_path, 2, "broken")
    books.wait_for(2, State.END)
    newest, older = books.manager.statuses(ModelRef("model"))
    assert (newest.version, newest.state, newest.code) == (2, State.END, Code.INTERNAL)
    assert newest.message == "the content is broken"
    assert (older.version, older.state, older.message) == (1, State.AVAILABLE, "")
    with books.manager.lease(ModelRef("model")) as lease:
        assert lease.version == 1


def test_a_version_that_fails_is_tried_again_as_often_as_allowed(serve, base_path):
    attempts = []

    def load(path):
        attempts.append(path.name)
        if len(attempts) < 3:
            raise OSError("the disk is away")
        return FakeModel(path)

    add(base_path, 1)
    books = serve(load=load, loading={"max_load_retries": 2})
    books.wait_for(1, State.AVAILABLE)
    assert attempts == ["1", "1", "1"]
    assert [message for _, _, state, message in books.events if state == State.LOADING][1] == "the disk is away"


def test_a_version_that_is_removed_while_it_is_being_loaded_is_not_tried_again(serve, base_path, caplog):
    def load(path):
        remove(base_path, 2)
        raise OSError("no such file")

    add(base_path, 2)
    with caplog.at_level("INFO"):
        books = serve(load=load, loading={"max_load_retries": 5, "retry_seconds": 60})
        books.wait_for(2, State.END)
        while "Version 2 of model was removed before it could be loaded" not in caplog.text:
            time.sleep(0.01)
    assert "failed" not in caplog.text


@pytest.fixture
def removing(base_path):
    """Loads versions, but finds that version 2 is being removed meanwhile."""

    def load(path):
        if path.name == "2":
            remove(base_path, 2)
            raise OSError("no such file")
        return FakeModel(path)

    add(base_path, 2)
    return load


def test_a_version_that_is_removed_while_it_is_being_loaded_leaves_hope_for_the_next_one(serve, base_path, removing):
    books = serve(load=removing)
    books.wait_for(2, State.END)
    threading.Timer(0.1, add, [base_path, 3]).start()
    assert books.manager.wait_until_ready(60)


def test_after_a_version_that_was_removed_newer_ones_are_looked_for_at_once(serve, base_path, removing):
    def load(path):
        if path.name == "2":
            add(base_path, 3)
        return removing(path)

    books = serve(load=load, loading={"poll_seconds": 1000})
    books.wait_for(3, State.AVAILABLE)
    assert books.states() == {2: State.END, 3: State.AVAILABLE}


def test_where_nobody_looks_again_a_version_that_was_removed_leaves_no_hope(serve, removing):
    books = serve(load=removing, loading={"poll_seconds": 0})
    assert not books.manager.wait_until_ready(60)
    assert "no such file" in books.manager.problems()["model"]


def test_what_a_model_waits_for_is_told(serve, base_path):
    go_on = threading.Event()
    books = serve(warm_up=lambda model, path: go_on.wait(10))
    while "No versions of servable model found" not in books.manager.problems().get("model", ""):
        time.sleep(0.01)
    add(base_path, 3)
    books.wait_for(3, State.LOADING)
    assert books.manager.problems() == {"model": "version 3 is being loaded"}
    go_on.set()
    books.wait_for(3, State.AVAILABLE)
    assert books.manager.problems() == {}


def test_a_version_that_is_copied_is_served_soon_after_its_last_file_came_however_long_retries_wait(
    serve, base_path, monkeypatch
):
    monkeypatch.setattr(manager, "COPY_POLL_SECONDS", 0.01)
    add(base_path, 1, "broken")
    served = serve(loading={"max_load_retries": 1, "retry_seconds": 3600.0})
    wait_until(lambda: "broken" in str(served.manager.problems()))
    (base_path / "1" / "content").write_text("fine now")
    served.wait_for(1, State.AVAILABLE)
    assert served.manager.problems() == {}


def test_a_version_that_failed_for_good_is_tried_anew_when_its_files_change(serve, base_path):
    add(base_path, 1, "broken")
    books = serve()
    books.wait_for(1, State.END)
    assert not books.manager.wait_until_ready(0)
    (base_path / "1" / "content").write_text("mended now")  # of another size: it may be the same moment still
    books.wait_for(1, State.AVAILABLE)


def test_requests_do_not_wait_while_the_files_of_a_failed_version_are_looked_at(serve, base_path, monkeypatch):
    from experiments_manager.serving.models import manager

    add(base_path, 1)
    add(base_path, 2, "broken")
    books = serve(VersionPolicy("all"))
    books.wait_for(1, State.AVAILABLE)
    books.wait_for(2, State.END)
    looking, go_on = threading.Event(), threading.Event()

    def look(path):
        looking.set()
        assert go_on.wait(10)

    monkeypatch.setattr(manager, "file_stamps", look)
    assert looking.wait(10)
    asking = threading.Thread(target=books.manager.lease, args=(ModelRef("model"),), daemon=True)
    asking.start()
    asking.join(5)
    answered = not asking.is_alive()
    go_on.set()
    assert answered


def test_a_version_takes_over_only_after_its_warm_up(serve, base_path):
    warmed = threading.Event()
    add(base_path, 1)
    books = serve(warm_up=lambda model, path: warmed.wait(10))
    books.wait_for(1, State.LOADING)
    with pytest.raises(ServingError, match=r"^Servable not found for request: Latest\(model\)$"):
        books.manager.lease(ModelRef("model"))
    warmed.set()
    books.wait_for(1, State.AVAILABLE)
    assert books.manager.lease(ModelRef("model")).version == 1


def test_a_version_whose_warm_up_fails_is_closed_and_not_served(serve, base_path):
    models = []

    def warm_up(model, path):
        models.append(model)
        raise ServingError(Code.INVALID_ARGUMENT, "its warm-up request is wrong")

    add(base_path, 1)
    books = serve(warm_up=warm_up)
    books.wait_for(1, State.END)
    [status] = books.manager.statuses(ModelRef("model"))
    assert (status.code, status.message) == (Code.INVALID_ARGUMENT, "its warm-up request is wrong")
    assert models[0].closed


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (VersionPolicy("latest", count=2), {3, 7}),
        (VersionPolicy("all"), {1, 3, 7}),
        (VersionPolicy("specific", versions=(1, 7, 9)), {1, 7}),
    ],
)
def test_the_policy_decides_which_versions_are_served(serve, base_path, policy, served):
    for version in (1, 3, 7):
        add(base_path, version)
    books = serve(policy)
    for version in served:
        books.wait_for(version, State.AVAILABLE)
    assert set(books.states()) == served


def test_versions_that_disappear_are_unloaded(serve, base_path):
    add(base_path, 1)
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    remove(base_path, 1)
    books.wait_for(1, State.END)
    with pytest.raises(ServingError, match=r"Servable not found for request: Latest\(model\)"):
        books.manager.lease(ModelRef("model"))


def test_a_base_path_that_cannot_be_read_changes_nothing(serve, base_path, caplog):
    add(base_path, 1)
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    base_path.rename(base_path.parent / "away")
    wait_until(lambda: "Could not find base path" in caplog.text)
    with books.manager.lease(ModelRef("model")) as lease:
        assert lease.version == 1


def test_a_missing_base_path_is_told_and_waited_for(serve, base_path):
    base_path.rmdir()
    books = serve()
    wait_until(lambda: "Could not find base path" in books.manager.problems().get("model", ""))
    assert not books.manager.wait_until_ready(0.1)
    add(base_path, 1)
    assert books.manager.wait_until_ready(10)
    assert books.manager.problems() == {}


def test_a_base_path_that_goes_away_while_it_is_looked_at_cannot_be_read(base_path, monkeypatch):
    for version in (1, 2):
        add(base_path, version)
    is_dir, away = Path.is_dir, base_path.with_name("away")

    def look_late(path):
        if path.name == "2":
            base_path.rename(away)
        return is_dir(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "is_dir", look_late)
        with pytest.raises(FileNotFoundError):
            list_versions(base_path)
    assert sorted(list_versions(away)) == [1, 2]


def test_folders_that_are_no_versions_are_passed_over(base_path):
    for name in ("1", "007", "-3", "1.5", "latest", ".stage-4", "99999999999999999999", "²", "٣"):
        (base_path / name).mkdir()
    (base_path / "5").write_text("a file")
    assert sorted(list_versions(base_path)) == [1, 7]


@pytest.mark.parametrize("name", ["", "other", "../models", "model/1", "model\0"])
def test_a_name_that_is_not_configured_reaches_nothing(serve, base_path, name):
    add(base_path, 1)
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    with pytest.raises(ServingError) as refused:
        books.manager.lease(ModelRef(name))
    assert refused.value.code == (Code.NOT_FOUND if name else Code.INVALID_ARGUMENT)


def test_labels_name_versions_and_can_be_moved(serve, base_path):
    for version in (1, 2):
        add(base_path, version)
    both = VersionPolicy("specific", versions=(1, 2))
    books = serve(both, {"stable": 1, "canary": 2})
    books.wait_for(1, State.AVAILABLE)
    books.wait_for(2, State.AVAILABLE)
    assert books.manager.lease(ModelRef("model", label="stable")).version == 1
    books.manager.reload([ModelConfig("model", base_path, both, {"stable": 2})], 10)
    assert books.manager.lease(ModelRef("model", label="stable")).version == 2
    with pytest.raises(ServingError, match="^Unrecognized servable version label: canary$") as refused:
        books.manager.lease(ModelRef("model", label="canary"))
    assert refused.value.code == Code.INVALID_ARGUMENT


def test_a_label_cannot_name_a_version_that_is_not_available(serve, base_path):
    add(base_path, 1)
    books = serve(labels={"stable": 1})
    books.wait_for(1, State.AVAILABLE)
    with pytest.raises(ServingError, match="to version 5 of model model, which is not currently available") as refused:
        books.manager.reload([ModelConfig("model", base_path, labels={"stable": 5})], 10)
    assert refused.value.code == Code.FAILED_PRECONDITION
    assert books.manager.lease(ModelRef("model", label="stable")).version == 1


@pytest.mark.parametrize(
    ("rule", "label", "allowed"),
    [
        (LabelRule.UNUSED, "canary", True),
        (LabelRule.UNUSED, "stable", False),
        (LabelRule.ANY, "stable", True),
    ],
)
def test_a_label_can_name_a_version_that_is_still_to_come_where_that_is_allowed(serve, base_path, rule, label, allowed):
    add(base_path, 1)
    books = serve(labels={"stable": 1}, label_rule=rule)
    books.wait_for(1, State.AVAILABLE)
    config = ModelConfig("model", base_path, VersionPolicy("all"), {"stable": 1, label: 5})
    if not allowed:
        with pytest.raises(ServingError, match="not currently available"):
            books.manager.reload([config], 10)
        return
    books.manager.reload([config], 10)
    with pytest.raises(ServingError, match=r"^Servable not found for request: Specific\(model, 5\)$"):
        books.manager.lease(ModelRef("model", label=label))
    add(base_path, 5)
    books.wait_for(5, State.AVAILABLE)
    assert books.manager.lease(ModelRef("model", label=label)).version == 5


def test_a_label_of_a_version_that_answers_counts_before_new_models_are_loaded(serve, base_path, tmp_path):
    add(base_path, 1)
    add(tmp_path / "others", 1, "broken")
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    with pytest.raises(ServingError, match="the content is broken"):
        books.manager.reload(
            [ModelConfig("model", base_path, labels={"stable": 1}), ModelConfig("other", tmp_path / "others")], 10
        )
    assert books.manager.lease(ModelRef("model", label="stable")).version == 1


def test_a_server_without_models_is_ready_and_takes_them_later(serve, base_path):
    add(base_path, 1)
    books = serve(configs=())
    assert books.manager.wait_until_ready(10)
    books.manager.reload([ModelConfig("model", base_path)], 10)
    assert books.manager.lease(ModelRef("model")).version == 1


def test_a_reload_brings_models_and_takes_them(serve, base_path, tmp_path):
    add(base_path, 1)
    add(tmp_path / "others", 4)
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    books.manager.reload([ModelConfig("other", tmp_path / "others")], 10)
    assert books.manager.lease(ModelRef("other")).version == 4
    books.wait_for(1, State.END)
    with pytest.raises(ServingError, match=r"Latest\(model\)"):
        books.manager.lease(ModelRef("model"))


def test_a_version_that_is_wanted_again_while_it_is_unloaded_is_loaded_again(serve, base_path):
    add(base_path, 1)
    add(base_path, 2)
    loading = {"poll_seconds": 0}  # so that nothing but the reloads makes it look
    books = serve(VersionPolicy("specific", versions=(1,)), loading=loading)
    books.wait_for(1, State.AVAILABLE)
    with books.manager.lease(ModelRef("model", 1)) as lease:
        books.manager.reload([ModelConfig("model", base_path, VersionPolicy("specific", versions=(2,)))], 0.1)
        books.wait_for(1, State.UNLOADING)
        add(base_path, 3)
        books.manager.reload([ModelConfig("model", base_path, VersionPolicy("all"))], 10)
        books.wait_for(3, State.AVAILABLE)  # so it has looked
    wait_until(lambda: books.states()[1] == State.AVAILABLE)
    assert lease.model.closed
    with books.manager.lease(ModelRef("model", 1)) as again:
        assert again.model is not lease.model


def test_a_reload_does_not_wait_for_a_model_that_another_one_has_taken_away(serve, base_path, tmp_path):
    add(base_path, 1)
    add(tmp_path / "others", 1)
    first, go_on = threading.Event(), threading.Event()

    def load(path):
        if path.parent.name == "others":
            first.set()
            assert go_on.wait(10)
        return FakeModel(path)

    books = serve(load=load)
    books.wait_for(1, State.AVAILABLE)
    model = ModelConfig("model", base_path)
    waiting = threading.Thread(target=books.manager.reload, args=([model, ModelConfig("other", tmp_path / "others")],))
    waiting.start()
    assert first.wait(10)
    books.manager.reload([model], 10)
    waiting.join(10)
    go_on.set()
    assert not waiting.is_alive()


def test_a_reload_does_not_answer_for_the_labels_of_another_one(serve, base_path, tmp_path):
    add(base_path, 1)
    add(tmp_path / "others", 1)
    first, go_on, answers = threading.Event(), threading.Event(), {}

    def load(path):
        if path.parent.name == "others":
            first.set()
            assert go_on.wait(60)
        return FakeModel(path)

    def reload(name, label, version):
        other = ModelConfig("other", tmp_path / "others", labels={label: version})
        try:
            books.manager.reload([ModelConfig("model", base_path), other])
        except ServingError as error:
            answers[name] = error.message

    books = serve(load=load)
    books.wait_for(1, State.AVAILABLE)
    waiting = [threading.Thread(target=reload, args=asked) for asked in [("one", "a", 1), ("two", "b", 7)]]
    waiting[0].start()
    assert first.wait(60)
    waiting[1].start()
    with books.manager.registry.changed:  # until the second one is in force
        assert books.manager.registry.changed.wait_for(
            lambda: "b" in books.manager.registry.configs["other"].labels, 60
        )
    go_on.set()
    for thread in waiting:
        thread.join(60)
    assert list(answers) == ["two"]


def test_a_reload_with_a_model_that_does_not_load_says_why_and_keeps_the_others(serve, base_path, tmp_path):
    add(base_path, 1)
    add(tmp_path / "others", 1, "broken")
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    with pytest.raises(ServingError, match="Some models did not become available: .*the content is broken"):
        books.manager.reload([ModelConfig("model", base_path), ModelConfig("other", tmp_path / "others")], 10)
    assert books.manager.lease(ModelRef("model")).version == 1


def test_a_base_path_that_is_no_path_is_told_and_holds_up_no_other_model(serve, base_path, tmp_path):
    add(base_path, 1)
    books = serve(configs=[])
    with pytest.raises(ServingError, match=r"Could not find base path '/no\\x00where' for servable bad") as caught:
        books.manager.reload([ModelConfig("bad", Path("/no\0where")), ModelConfig("model", base_path)], 60)
    assert caught.value.code is Code.UNKNOWN
    assert "model:" not in str(caught.value)
    assert books.manager.lease(ModelRef("model")).version == 1


@pytest.mark.parametrize("place", ["content", "variables/variables.index"])
def test_a_version_with_a_fifo_is_refused_and_keeps_no_other_from_being_loaded(serve, base_path, tmp_path, place):
    add(tmp_path / "good", 1)
    add(base_path, 1)
    file = base_path / "1" / place
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    books = serve(configs=[ModelConfig("model", base_path), ModelConfig("good", tmp_path / "good")])
    try:
        books.wait_for(1, State.AVAILABLE, "good")
        books.wait_for(1, State.END)
    finally:
        with contextlib.suppress(OSError):  # whoever waits for it goes on
            os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
    assert f"{place} is a FIFO. Expected a regular file." in books.manager.problems()["model"]


def test_a_version_may_hold_links_also_in_circles(serve, base_path):
    add(base_path, 1)
    (base_path / "1" / "again").symlink_to(base_path / "1")
    (base_path / "1" / "nowhere").symlink_to(base_path / "nowhere")
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    assert books.manager.problems() == {}


def test_states_of_models_and_versions_that_do_not_exist_are_not_found(serve, base_path):
    add(base_path, 1)
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    with pytest.raises(ServingError, match="^Could not find any versions of model other$"):
        books.manager.statuses(ModelRef("other"))
    with pytest.raises(ServingError, match="^Could not find version 7 of model model$"):
        books.manager.statuses(ModelRef("model", 7))


def test_closing_waits_for_nobody_and_closes_what_is_idle(serve, base_path):
    add(base_path, 1)
    books = serve()
    books.wait_for(1, State.AVAILABLE)
    with books.manager.lease(ModelRef("model")) as lease:
        pass
    books.manager.close()
    assert lease.model.closed
    with contextlib.suppress(ServingError):
        books.manager.lease(ModelRef("model"))
        pytest.fail("a closed manager gave out a version")


def test_closing_begins_to_load_nothing_more_even_while_a_slow_disk_is_looked_at(serve, base_path, monkeypatch):
    began, looking, go_on, seen = [], threading.Event(), threading.Event(), threading.Event()

    def load(path):
        began.append(path.name)
        assert go_on.wait(60)
        return FakeModel(path)

    def look_slowly(path):
        looking.set()
        assert seen.wait(60)
        return list_versions(path)

    add(base_path, 1)
    add(base_path, 2)
    books = serve(VersionPolicy("all"), load=load)
    books.wait_for(1, State.LOADING)  # in the queue behind version 2
    monkeypatch.setattr("experiments_manager.serving.models.manager.list_versions", look_slowly)
    assert looking.wait(60)
    closing = threading.Thread(target=books.manager.close)
    closing.start()
    assert not books.manager.wait_until_ready(60)  # it is being closed
    go_on.set()
    books.wait_for(1, State.END)
    seen.set()
    closing.join(60)
    assert (began, closing.is_alive()) == (["2"], False)


def test_once_closed_nothing_is_said_to_be_loaded(serve, base_path):
    go_on = threading.Event()

    def load(path):
        assert go_on.wait(60)
        return FakeModel(path)

    for version in range(5):
        add(base_path, version)
    books = serve(VersionPolicy("all"), load=load)
    books.wait_for(0, State.LOADING)
    closing = threading.Thread(target=books.manager.close)
    closing.start()
    books.manager._watcher.join(60)
    go_on.set()
    closing.join(60)
    assert books.manager.unfinished() == []
    assert set(books.states().values()) == {State.END}


def test_a_version_that_cannot_be_closed_keeps_no_other_in_memory(serve, base_path):
    go_on = threading.Event()

    class Busy(FakeModel):
        def close(self):
            assert self.content != "busy" or go_on.wait(10)
            super().close()

    add(base_path, 1, "busy")
    books = serve(load=Busy)
    books.wait_for(1, State.AVAILABLE)
    add(base_path, 2)
    books.wait_for(1, State.UNLOADING)
    add(base_path, 3)
    books.wait_for(2, State.END)
    assert books.manager.unfinished() == ["version 1 of model still runs a call"]
    go_on.set()
    books.wait_for(1, State.END)
    assert books.manager.unfinished() == []
