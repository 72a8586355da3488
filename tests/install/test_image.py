"""An image, really built by an ordinary user from Debian's packages, and run."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
TARGET, LARGEST = "serve", 1200
USER = "builder"
NEEDED = ("mmdebstrap", "newuidmap", "unshare", "ip")
_SPEC = importlib.util.spec_from_file_location("engines", ROOT / "install" / "engines.py")
engines = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(engines)

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # where administrators' commands are, which not every shell names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def as_user(*command):
    return [shutil.which("runuser", path=PATH), "-u", USER, "--", *command] if os.geteuid() == 0 else [*command]


def why_not():
    """Tells what is missing to build one here."""
    if missing := [name for name in NEEDED if not shutil.which(name, path=PATH)]:
        return f"{', '.join(missing)} is not installed; install/README.md says how"
    for command in (["true"], [PYTHON, "-c", "import packaging, pip"], [*engines.NAMESPACE, "true"]):
        done = subprocess.run(as_user(*command), capture_output=True, text=True)
        if done.returncode != 0:
            return f"an ordinary user cannot run {command[0]}: {done.stderr.strip()}"
    return None


@pytest.fixture(scope="module")
def build():
    """Gives a function that builds an image, and gives its name and what its build printed."""
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="image_") as name:  # pytest's own folders are for one user alone
        place = Path(name)
        for folder in ("install", "experiments_manager"):
            shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", ".dockerignore"):
            shutil.copy(ROOT / file, place)
        if os.geteuid() == 0:
            shutil.chown(place, USER)
        environment = {**os.environ, "PATH": PATH, "HOME": name, "PYTHONDONTWRITEBYTECODE": "1"}

        def start(target, engine):
            command = [PYTHON, str(place / "install/build.py"), target, "--engine", engine, "--base", "mmdebstrap"]
            done = subprocess.run(as_user(*command), capture_output=True, text=True, env=environment, cwd=place)
            assert done.returncode == 0, done.stdout + done.stderr
            return re.search(r"^(\S+): \d+ MB, made in", done.stdout, re.MULTILINE).group(1), done.stdout

        yield start
        subprocess.run(as_user(*engines.NAMESPACE, "rm", "-rf", str(place / "build")), check=True, cwd="/")


@pytest.fixture(scope="module")
def built(build):
    return build(TARGET, "chroot")


def run(image, *command):
    return subprocess.run(
        as_user(*engines.chroot_command(image, *command)), capture_output=True, text=True, cwd="/", timeout=300
    )


def test_its_own_test_serves_a_model_without_network_and_home(built):
    assert re.search(r"^First answer after [\d.]+ s: \[\[6.0\]\]$", built[1], re.MULTILINE)


def test_it_is_as_small_as_is_said(built):
    size = int(re.search(rf"/{TARGET}: (\d+) MB", built[1]).group(1))
    assert 50 < size < LARGEST


def test_its_packages_are_those_of_the_frozen_list(built):
    code = "from importlib import metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    said = run(built[0], "sh", f"{engines.SHARE}/run.sh", "python", "-c", code).stdout.lower().replace("_", "-").split()
    frozen = (ROOT / "install" / engines.LISTS[TARGET]).read_text(encoding="utf-8").lower().replace("_", "-")
    installed = [entry for entry in said if not entry.startswith("keras-experiments-manager==")]
    assert len(installed) > 20
    assert [entry for entry in installed if f"\n{entry} " not in f"\n{frozen}"] == []


def test_it_runs_read_only_for_a_user_who_is_nobody(built):
    script = "id -u; touch /opt/x /usr/x; echo ${HOME-unset}; ls /sys/class/net 2>/dev/null; find / -xdev ! -readable"
    done = run(built[0], "sh", "-c", f"{script} -path '/opt/*' 2>/dev/null")
    assert done.stdout.split() == ["12345", "unset"]
    assert done.stderr.count("Read-only file system") == 2


@pytest.mark.parametrize("tool", ["pip", "strip", "apt-get", "dpkg", "perl", "gcc"])
def test_no_tool_that_builds_or_installs_is_left(built, tool):
    assert run(built[0], "sh", "-c", f"command -v {tool} || ls /opt/experiments_manager/bin/{tool}*").returncode != 0


def test_its_help_and_its_version_are_those_of_the_package(built):
    assert "Commands:" in run(built[0], "sh", f"{engines.SHARE}/run.sh", "--help").stdout
    told = run(built[0], "sh", f"{engines.SHARE}/run.sh", "experiments-model-server", "--version").stdout
    assert re.search(r"TensorFlow Library: 2\.\d+\.\d+", told)


@pytest.mark.skipif(not shutil.which("apptainer"), reason="Apptainer is not installed")
def test_apptainer_makes_one_file_that_serves_a_model(build):
    image, said = build("lite", "apptainer")
    assert image.endswith("tf_server_lite.sif")
    assert re.search(r"^First answer after [\d.]+ s: \[\[6.0\]\]$", said, re.MULTILINE)
