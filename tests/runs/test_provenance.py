import importlib.metadata
import os
import platform
import re
import sys
import time

import pytest

from experiments_manager.runs import provenance
from experiments_manager.runs.provenance import describe_git, describe_host, installed_packages


@pytest.fixture
def repository(experiment, git):
    git(experiment, "init")
    git(experiment, "add", ".")
    git(experiment, "commit", "-m", "First")
    return experiment


def test_a_clean_repository_has_a_commit_a_branch_and_no_diff(repository, git):
    state = describe_git(repository / "mysettings.py", [repository / "helper.py"])
    assert state.as_fields() == {
        "commit": git(repository, "rev-parse", "HEAD"),
        "dirty": False,
        "branch": "trunk",
        "untracked": [],
    }
    assert state.diff == b""


def test_the_diff_holds_staged_and_unstaged_changes_of_the_whole_repository(repository, git, write_file):
    write_file(repository / "sub" / "deep.py", "x = 1\n")
    git(repository, "add", "sub")
    write_file(repository / "helper.py", "VALUE = 42\n")
    state = describe_git(repository / "sub" / "deep.py")
    assert state.dirty
    assert b"+VALUE = 42\n" in state.diff
    assert b"+++ b/sub/deep.py\n" in state.diff


def test_the_diff_brings_a_fresh_checkout_to_the_same_state(repository, git, tmp_path, write_file):
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "color.ui", "always")
    git(repository, "config", "diff.external", "false")
    git(repository, "clone", str(repository), str(tmp_path / "clone"))
    write_file(repository / "helper.py", "VALUE = 'größer'\n")
    (tmp_path / "git.diff").write_bytes(describe_git(repository / "mysettings.py").diff)
    git(tmp_path / "clone", "apply", str(tmp_path / "git.diff"))
    assert (tmp_path / "clone" / "helper.py").read_text("utf-8") == "VALUE = 'größer'\n"


def test_an_untracked_source_makes_it_dirty_and_is_named(repository, write_file):
    new = write_file(repository / "new [1].py", "")
    write_file(repository / "unrelated.txt", "")
    state = describe_git(repository / "mysettings.py", [repository / "mysettings.py", new])
    assert state.dirty
    assert state.untracked == ("new [1].py",)
    assert state.diff == b""


def test_a_repository_without_commits_has_none(experiment, git):
    git(experiment, "init")
    git(experiment, "add", "mysettings.py")
    state = describe_git(experiment / "mysettings.py")
    assert (state.commit, state.branch, state.dirty) == (None, "trunk", True)
    assert b"+++ b/mysettings.py\n" in state.diff


def test_a_detached_head_has_no_branch(repository, git):
    git(repository, "checkout", "--detach")
    assert describe_git(repository / "mysettings.py").branch is None


def test_the_users_index_is_left_alone(repository):
    os.utime(repository / "helper.py", (1e9, 1e9))
    before = (repository / ".git" / "index").read_bytes()
    describe_git(repository / "mysettings.py")
    assert (repository / ".git" / "index").read_bytes() == before


def test_a_git_hook_that_calls_us_does_not_mislead(repository, git, monkeypatch):
    commit = git(repository, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert describe_git(repository / "mysettings.py").commit == commit


def test_a_repository_cannot_make_us_run_its_programs(repository, git, tmp_path):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was_run\n")
    program.chmod(0o700)
    git(repository, "config", "core.fsmonitor", str(program))
    git(repository, "config", "diff.external", str(program))
    (repository / "helper.py").write_text("VALUE = 0\n")
    assert b"+VALUE = 0" in describe_git(repository / "mysettings.py").diff
    assert not (tmp_path / "was_run").exists()


def test_a_huge_diff_is_cut_at_a_line_and_says_so(repository, write_file, monkeypatch):
    monkeypatch.setattr(provenance, "LARGEST_DIFF", 2000)
    write_file(repository / "helper.py", "x = 1\n" * 10000)
    diff = describe_git(repository / "mysettings.py").diff
    assert len(diff) < 2100
    assert diff.splitlines()[-2] == b"+x = 1"
    assert diff.splitlines()[-1].startswith(b"# cut here: the whole diff has 7")


def test_outside_a_repository_there_is_nothing_to_say(experiment, git):
    assert describe_git(experiment / "mysettings.py") is None


def test_a_missing_folder_is_no_failure(tmp_path, git):
    assert describe_git(tmp_path / "missing" / "mysettings.py") is None


def test_without_git_there_is_nothing_to_say(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert describe_git(repository / "mysettings.py") is None


def test_a_git_that_does_not_answer_is_given_up_and_told(repository, tmp_path, monkeypatch, caplog):
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(program.parent) + os.pathsep + os.environ["PATH"])
    monkeypatch.setattr(provenance, "_TIMEOUT", 0.05)
    began = time.monotonic()
    assert describe_git(repository / "mysettings.py") is None
    assert time.monotonic() - began < 30  # the sixty of that program are not waited for
    assert caplog.messages == ["git status took more than 0.05 s; the run is recorded without what it tells."]


def test_packages_are_those_that_the_installers_noted():
    expected = {}
    for distribution in importlib.metadata.distributions():  # the first on the path is the one that is imported
        expected.setdefault(re.sub("[-_.]+", "-", distribution.name).lower(), distribution.version)
    packages = installed_packages()
    assert packages["pytest"] == pytest.__version__
    assert packages == expected
    assert list(packages) == sorted(packages)


def test_a_package_in_development_is_listed_too(tmp_path, monkeypatch, write_file):
    write_file(tmp_path / "my_tool.egg-info" / "PKG-INFO", "Metadata-Version: 2.1\nName: my_tool\nVersion: 1.2.dev0\n")
    write_file(tmp_path / "broken.egg-info" / "other", "")
    monkeypatch.setattr(sys, "path", [str(tmp_path), "/missing"])
    assert installed_packages() == {"broken": "unknown", "my-tool": "1.2.dev0"}


def test_the_host_is_described():
    host = describe_host()
    assert host["python"] == platform.python_version()
    assert host["cpus"] >= 1
    assert host["name"] and host["system"].startswith(platform.system())
