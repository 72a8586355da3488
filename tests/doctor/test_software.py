import importlib.metadata

import pytest

from experiments_manager.common import installation
from experiments_manager.doctor import software
from experiments_manager.doctor.finding import FindingState


@pytest.fixture
def on_the_path(tmp_path, monkeypatch):
    """Gives a function that puts a program on the path, which is empty otherwise."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return put


def test_programs_that_are_missing_can_be_missed(on_the_path):
    assert software.apptainer().state is FindingState.NOTE
    assert software.slurm().state is FindingState.NOTE


def test_programs_that_are_there_tell_their_version(on_the_path):
    on_the_path("singularity", "echo singularity-ce version 4.1.0")
    on_the_path("sbatch", "echo slurm 23.11.4")
    assert software.apptainer().text == "singularity-ce version 4.1.0"
    assert software.slurm().text == "slurm 23.11.4"


def test_a_program_that_fails_is_told_with_its_last_words(on_the_path):
    on_the_path("sbatch", "echo no configuration >&2; exit 1")
    assert software.slurm().text == "`sbatch --version` ended with code 1: no configuration"


def test_extras_that_are_complete_are_told_from_those_that_lack_a_package(monkeypatch):
    requirements = [
        "numpy>=1.26",
        'pytest>=8; extra == "one"',
        "pytest; extra == 'two'",
        'no-such-package>=2; extra == "two"',
        'pytest; extra == "test"',
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    installation.requirements_by_extra.cache_clear()
    found = software.extras()
    assert found.text == "installed: one; missing: two (lacks no-such-package)"
    assert found.remedy == "To add two: pip install pytest 'no-such-package>=2'"
    installation.requirements_by_extra.cache_clear()


def test_an_extra_that_names_an_extra_of_another_package_needs_the_packages_of_that_one(monkeypatch):
    declared = {
        "flwr": [
            "numpy",
            'no-such-ray==2; python_version >= "3" and extra == "simulation"',
            'not-asked; extra == "rest"',
        ],
        installation.DISTRIBUTION: ['flwr[simulation]>=1; extra == "ray"', 'flwr>=1; extra == "plain"'],
    }
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: declared.get(name, []))
    monkeypatch.setattr(software, "_has", lambda name: not name.startswith(("no-such", "not-asked")))
    installation.requirements_by_extra.cache_clear()
    assert software.extras().text == "installed: plain; missing: ray (lacks no-such-ray)"
    installation.requirements_by_extra.cache_clear()


def test_python_is_told_with_the_version_of_the_package():
    assert "experiments_manager" in software.python().text
