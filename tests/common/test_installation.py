import importlib.metadata
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments_manager.common import installation
from experiments_manager.common.installation import (
    DISTRIBUTION,
    distribution_of,
    install_command,
    requirements_by_extra,
)

ROOT = Path(__file__).resolve().parents[2]
TELLS_TO_INSTALL = re.compile(
    r"(?:pip\S*|conda|mamba|uv|poetry|pdm) (?:\w+ )?(?:install|add)\b[^`;)\n]*?"
    r"(?<![\w/.-])experiments[-_]manager(?![\w/.-])",
    re.IGNORECASE,
)


@pytest.fixture
def declared(monkeypatch):
    """Gives a function that sets what the metadata of the distribution require; None: there are no metadata."""

    def declare(requirements):
        def requires(name):
            if requirements is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return requirements

        monkeypatch.setattr(importlib.metadata, "requires", requires)
        requirements_by_extra.cache_clear()

    yield declare
    requirements_by_extra.cache_clear()


def test_a_command_names_the_packages_of_an_extra_with_their_ranges_and_conditions(declared):
    declared(
        ['flwr<1.42,>=1.41; extra == "federated"', "uvloop>=0.21; platform_system != 'Windows' and extra == 'serving'"]
    )
    assert shlex.split(install_command("federated")) == ["pip", "install", "flwr<1.42,>=1.41"]
    assert shlex.split(install_command("serving"))[-1] == "uvloop>=0.21; platform_system != 'Windows'"


def test_an_extra_that_names_others_needs_what_they_need_once(declared):
    declared(
        [
            'six; extra == "one"',
            'six; extra == "two"',
            'rich; extra == "two"',
            f'{DISTRIBUTION}[one,two]; extra == "all"',
        ]
    )
    assert install_command("all") == "pip install six rich"


def test_the_source_declares_what_the_installed_distribution_does(declared):
    declared(importlib.metadata.requires(DISTRIBUTION))
    installed = {extra: sorted(map(_normal, needed)) for extra, needed in requirements_by_extra().items()}
    declared(None)
    assert {extra: sorted(map(_normal, needed)) for extra, needed in requirements_by_extra().items()} == installed


def test_without_metadata_and_source_the_command_is_that_of_a_copy_of_the_source(declared, monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "SOURCE", tmp_path)
    declared(None)
    assert install_command("kafka") == "pip install '.[kafka]'"


def test_no_text_tells_anyone_to_install_the_package_of_another_author_by_its_name():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    texts = {name: _text(ROOT / name) for name in files if name and "tests/common/test_installation" not in name}
    assert len(texts) > 500
    found = [f"{name}: {match.group()}" for name, text in texts.items() for match in TELLS_TO_INSTALL.finditer(text)]
    assert not found
    assert TELLS_TO_INSTALL.search("uv add experiments_manager")
    assert TELLS_TO_INSTALL.search('Run: pip install --no-deps "experiments-manager[kafka]"')


def test_what_is_missing_is_named_as_pip_installs_it():
    assert [distribution_of(name) for name in ("sklearn", "skimage", "cv2")] == [
        *("scikit-learn", "scikit-image", "opencv-python-headless"),
    ]
    for module, names in importlib.metadata.packages_distributions().items():
        there = {name.lower().replace("_", "-") for name in names}
        if distribution_of(module) != module and not any("opencv" in name for name in there):
            assert distribution_of(module).lower() in there


def _normal(requirement):
    return "".join(sorted(re.sub(r"[\s'\"]", "", requirement)))


def _text(file):
    try:
        return file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return ""
