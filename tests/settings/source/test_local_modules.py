import os
import sys
import threading

from experiments_manager.settings import load_settings

REST = "loss = 'mse'\nlearning_rate = 0.1\ndef model(): pass\n"


def test_two_experiments_with_helpers_of_one_name_each_get_their_own(write):
    loaded = []
    for folder in ("one", "two"):
        write(f"where = '{folder}'\n", f"{folder}/helpers.py", complete=False)
        write(f"deep = '{folder}'\n", f"{folder}/lib/__init__.py", complete=False)
        text = (
            REST
            + "import helpers\ndef dataset():\n    import helpers as again, lib\n    return again.where, lib.deep\n"
        )
        loaded.append(load_settings(write(text, f"{folder}/mysettings_same.py", complete=False)))
    first, second = loaded
    assert first.call("dataset") == ("one", "one")
    assert second.call("dataset") == ("two", "two")
    assert first.call("dataset") == ("one", "one")
    assert first.module.helpers is not second.module.helpers


def test_a_changed_helper_is_read_anew_by_the_next_load(write):
    path = write(REST + "import helpers\ndef dataset(): return helpers.value\n", complete=False)
    write("value = 1\n", "helpers.py", complete=False)
    first = load_settings(path)
    write("value = 'two'\n", "helpers.py", complete=False)
    assert load_settings(path).call("dataset") == "two"
    assert first.call("dataset") == 1


def test_a_helper_that_came_up_within_a_tick_of_the_disks_clock_is_found(write, tmp_path):
    write("value = 1\n", "helpers.py", complete=False)
    path = write(REST + "import helpers\ndef dataset(): return helpers.value\n", complete=False)
    assert load_settings(path).call("dataset") == 1
    listed = tmp_path.stat()  # when Python listed the folder, by whose time it tells whether to do so again
    write("value = 2\n", "new_helpers.py", complete=False)
    write(REST + "import new_helpers\ndef dataset(): return new_helpers.value\n", complete=False)
    os.utime(tmp_path, ns=(listed.st_atime_ns, listed.st_mtime_ns))
    assert load_settings(path).call("dataset") == 2


def test_a_module_that_others_imported_before_comes_back(write, tmp_path, monkeypatch):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "helpers_of_all.py").write_text("where = 'elsewhere'\n")
    monkeypatch.syspath_prepend(other)
    import helpers_of_all

    write("where = 'here'\n", "helpers_of_all.py", complete=False)
    settings = load_settings(
        write(REST + "import helpers_of_all\ndef dataset(): return helpers_of_all.where\n", complete=False)
    )
    assert settings.call("dataset") == "here"
    assert sys.modules["helpers_of_all"] is helpers_of_all


def test_modules_of_the_working_directory_are_found_too(write):
    write("where = 'working directory'\n", "shared_helpers.py", complete=False)
    text = REST + "import shared_helpers\ndef dataset(): return shared_helpers.where\n"
    assert load_settings(write(text, "sub/mysettings_a.py", complete=False)).call("dataset") == "working directory"


def test_a_file_called_like_a_module_of_python_does_not_replace_it(write):
    import random

    write("value = 3\n", "random.py", complete=False)
    load_settings(write(""))
    assert sys.modules["random"] is random


def test_a_hook_of_one_experiment_may_load_another(write):
    write("where = 'inner'\n", "inner/helpers.py", complete=False)
    write(REST + "import helpers\ndef dataset(): return helpers.where\n", "inner/mysettings_in.py", complete=False)
    write("where = 'outer'\n", "outer/helpers.py", complete=False)
    text = REST + (
        "from experiments_manager.settings import load_settings\n"
        "def dataset():\n"
        "    inner = load_settings('inner/mysettings_in.py').call('dataset')\n"
        "    import helpers\n"
        "    return inner, helpers.where\n"
    )
    settings = load_settings(write(text, "outer/mysettings_out.py", complete=False))
    assert settings.call("dataset") == ("inner", "outer")


def test_a_hook_that_another_thread_calls_meanwhile_keeps_its_modules(write):
    write("where = 'here'\n", "late_helpers.py", complete=False)
    text = "def prepare_datasets(run):\n  run()\n  import late_helpers\n  return late_helpers.where\n"
    text += REST + "def dataset(): pass\n"
    settings = load_settings(write(text, complete=False))
    started, finish, found = threading.Event(), threading.Event(), []

    def wait():
        started.set()
        assert finish.wait(timeout=10)

    thread = threading.Thread(target=lambda: found.append(settings.call("prepare_datasets", run=wait)))
    thread.start()
    assert started.wait(timeout=10)
    assert settings.call("prepare_datasets", run=lambda: None) == "here"
    del sys.modules["late_helpers"]
    finish.set()
    thread.join(timeout=10)
    assert found == ["here"]


def test_code_outside_of_hook_calls_finds_its_modules_while_the_settings_are_active(write):
    write("value = 3\n", "fed_helpers.py", complete=False)
    text = REST + "def dataset():\n    import fed_helpers\n    yield fed_helpers.value\n"
    settings = load_settings(write(text, complete=False))
    generator = settings.call("dataset")
    with settings.active():
        assert next(generator) == 3
