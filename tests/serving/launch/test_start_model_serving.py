"""`tools/start_model_serving.py`: Python's standard library and TensorFlow Serving are all that it needs."""

import ast
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.runs.serving_setup import ServingSetup, write_serving_setup

TOOL = Path(__file__).resolve().parents[3] / "tools" / "start_model_serving.py"


@pytest.fixture
def ports(free_port):
    return free_port(), free_port()


@pytest.fixture
def run_dir(tmp_path, ports):
    folder = tmp_path / "a run"
    (folder / "exported_models" / "12").mkdir(parents=True)
    write_serving_setup(folder, ServingSetup("localhost", *ports, "mysettings_line"))
    return folder


@pytest.fixture
def start(tmp_path):
    """Starts the tool where no installed package can be imported, with programs on the path that print their flags."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def run(*arguments, path=("tensorflow_model_server",)):
        for name in path:
            file = programs / name
            file.write_text(f"#!{sys.executable} -IS\nimport json, sys\nprint(json.dumps(sys.argv))\n")
            file.chmod(file.stat().st_mode | stat.S_IXUSR)
        command = [sys.executable, "-I", "-S", str(TOOL), *map(str, arguments)]
        environment = {**os.environ, "PATH": str(programs)}
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)

    return run


def started(done):
    """The command line of the program that was started."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_but_the_standard_library_is_imported():
    tree = ast.parse(TOOL.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "form", [["--model_dir={}"], ["--model_dir", "{}"], ["-m", "{}"], ["--model_dir={}/exported_models"]]
)
def test_it_starts_the_binary_with_what_the_run_folder_says(start, run_dir, ports, form):
    program, *flags = started(start(*[part.format(run_dir) for part in form]))
    assert Path(program).name == "tensorflow_model_server"
    assert flags == [
        f"--port={ports[0]}",
        f"--rest_api_port={ports[1]}",
        "--model_name=mysettings_line",
        f"--model_base_path={run_dir / 'exported_models'}",
    ]


@pytest.mark.parametrize(
    "form",
    [["-psi={}"], ["-psi", "{}"], ["--tf_server_container_path={}"], ["--singularity_tf_server_container_path={}"]],
)
@pytest.mark.parametrize("program", ["apptainer", "singularity"])
def test_it_starts_a_container_with_the_image(start, run_dir, tmp_path, form, program):
    image = tmp_path / "tf_server.sif"
    image.touch()
    arguments = [f"--model_dir={run_dir}", *[part.format(image) for part in form]]
    name, word, *rest = started(start(*arguments, path=[program]))
    rest = [part for part in rest if part != "--nv"]
    assert (Path(name).name, word) == (program, "exec")
    assert rest[:4] == ["--bind", f"{run_dir}/exported_models:/models/served:ro", str(image), "tensorflow_model_server"]
    assert "--model_base_path=/models/served" in rest


@pytest.mark.parametrize("form", [["-v", "12"], ["--version=12"]])
@pytest.mark.parametrize("program", ["tensorflow_model_server", "apptainer"])
def test_one_version_alone_is_served(start, run_dir, tmp_path, form, program):
    image = tmp_path / "tf_server.sif"
    image.touch()
    (run_dir / "exported_models" / "13").mkdir()
    container = ["-psi", image] if program == "apptainer" else []
    line = started(start(f"--model_dir={run_dir}", *form, *container, path=[program]))
    [config] = [word.partition("=")[2] for word in line if word.startswith("--model_config_file=")]
    text = Path(config).read_text()
    Path(config).unlink()
    base_path = "/models/served" if container else f"{run_dir}/exported_models"
    assert f'base_path: "{base_path}"' in text
    assert 'name: "mysettings_line"' in text
    assert "model_version_policy { specific { versions: 12 } }" in text
    assert (f"{config}:{config}:ro" in line) == bool(container)


@pytest.mark.parametrize("version", ["13", "newest", "-1"])
def test_a_version_that_is_not_there_is_told(start, run_dir, version):
    done = start(f"--model_dir={run_dir}", f"--version={version}")
    assert done.returncode == 2
    assert f"Version {version} not found in {run_dir}/exported_models. Expected 12, or 0" in done.stderr


def test_ports_and_further_flags_are_handed_on(start, run_dir):
    flags = started(start(f"--model_dir={run_dir}", "--rest_port=0", "--enable_batching"))
    assert "--rest_api_port=0" in flags
    assert flags[-1] == "--enable_batching"


def test_a_run_that_was_moved_is_found_where_it_is(start, run_dir, tmp_path):
    shutil.move(run_dir, tmp_path / "moved")
    assert f"--model_base_path={tmp_path}/moved/exported_models" in started(start(f"--model_dir={tmp_path}/moved"))
    done = start(f"--model_dir={run_dir}")
    assert (done.returncode, "Was the run moved or renamed?" in done.stderr) == (2, True)


def test_a_folder_of_versions_needs_no_run(start, tmp_path):
    (tmp_path / "models" / "3").mkdir(parents=True)
    flags = started(start(f"--model_dir={tmp_path / 'models'}", "--port=0", "--rest_port=0"))
    assert f"--model_base_path={tmp_path / 'models'}" in flags
    assert "--model_name=default" in flags


@pytest.mark.parametrize(
    ("arguments", "path", "message"),
    [
        ([], [], "tensorflow_model_server is not on the path"),
        (["-psi=missing.sif"], ["apptainer"], "Image missing.sif not found. Make one: apptainer build"),
        ([f"-psi={TOOL}"], [], "Install Apptainer, which needs no root"),
    ],
)
def test_what_is_missing_is_told_with_how_to_get_it(start, run_dir, arguments, path, message):
    done = start(f"--model_dir={run_dir}", *arguments, path=path)
    assert (done.returncode, message in done.stderr, done.stderr.count("\n")) == (2, True, 1)


def test_a_run_without_a_version_is_told_with_the_folder(start, run_dir):
    (run_dir / "exported_models" / "12").rmdir()
    done = start(f"--model_dir={run_dir}")
    assert (done.returncode, f"No exported model in {run_dir}/exported_models" in done.stderr) == (2, True)


def test_a_taken_port_is_told(start, run_dir, ports):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("", ports[0]))
        taken.listen()
        done = start(f"--model_dir={run_dir}")
    assert (done.returncode, f"Port {ports[0]} cannot be used" in done.stderr) == (2, True)


@pytest.mark.parametrize("value", ["nine", "", "-1", "70000", "²", "9000.0"])
@pytest.mark.parametrize("key", ["port", "rest_port"])
def test_a_port_that_is_none_is_told_with_its_place(start, run_dir, key, value):
    sentence = f"is not a port. Expected a whole number from 0 to 65535, got {value!r}. Change it.\n"
    done = start(f"--model_dir={run_dir}", f"--{key}={value}")
    assert (done.returncode, done.stderr) == (2, f"--{key} {sentence}")
    (run_dir / "model_serving_setup.ini").write_text(f"[SERVER]\n{key} = {value}\n", encoding="utf-8")
    done = start(f"--model_dir={run_dir}")
    assert (done.returncode, done.stderr) == (2, f"{key} in model_serving_setup.ini {sentence}")


def test_folders_whose_names_are_digits_of_other_scripts_are_no_versions(start, run_dir):
    for name in ("²", "٣"):
        (run_dir / "exported_models" / name).mkdir()
    started(start(f"--model_dir={run_dir}"))
    (run_dir / "exported_models" / "12").rmdir()
    done = start(f"--model_dir={run_dir}")
    assert (done.returncode, f"No exported model in {run_dir}/exported_models" in done.stderr) == (2, True)


def test_a_damaged_setup_file_is_told(start, run_dir):
    (run_dir / "model_serving_setup.ini").write_text("nonsense")
    done = start(f"--model_dir={run_dir}")
    assert (done.returncode, "model_serving_setup.ini is damaged" in done.stderr) == (2, True)


def test_a_setup_file_that_is_no_text_is_told(start, run_dir):
    (run_dir / "model_serving_setup.ini").write_bytes(b"[SERVER]\nmodel_name = caf\xe9\n")
    told = start("--model_dir", run_dir)
    assert told.returncode == 2
    assert "model_serving_setup.ini is damaged: 'utf-8' codec can't decode" in told.stderr
    assert "Traceback" not in told.stderr


def test_examples_are_shown(start):
    done = start("--commands")
    assert "-psi=tf_server.sif" in done.stdout


def test_it_can_be_imported_without_starting_anything():
    from tools import start_model_serving

    assert callable(start_model_serving.main)
