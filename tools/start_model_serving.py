#!/usr/bin/env python3
"""Start TensorFlow Serving on a run, with nothing but Python and TensorFlow Serving installed.

    python3 tools/start_model_serving.py --model_dir=experiments/my_run
    python3 tools/start_model_serving.py --model_dir=experiments/my_run -psi=tf_server.sif

It needs Python's standard library alone, so it may be copied to a machine that serves and does not train. The name of
the model and the ports come from model_serving_setup.ini in the run folder. `experiments_manager serve` does the same
and more.
"""

import argparse
import configparser
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
from pathlib import Path

BINARY = "tensorflow_model_server"
SETUP_FILE = "model_serving_setup.ini"
INSIDE = "/models/served"  # what the folder of versions is called in a container
EXAMPLES = """examples:
  with tensorflow_model_server on the path:
    python3 tools/start_model_serving.py --model_dir=experiments/my_run
  with TensorFlow Serving in an Apptainer (formerly Singularity) image:
    apptainer build tf_server.sif docker://tensorflow/serving
    python3 tools/start_model_serving.py --model_dir=experiments/my_run -psi=tf_server.sif
"""
NO_APPTAINER = (
    "Neither apptainer nor singularity is on the path. Install Apptainer, which needs no root: "
    "`conda install -c conda-forge apptainer`, or on Ubuntu `sudo add-apt-repository -y ppa:apptainer/ppa && "
    "sudo apt install apptainer`; see https://apptainer.org/docs/admin/main/installation.html."
)
NO_BINARY = (
    f"{BINARY} is not on the path. Install TensorFlow Serving, give an Apptainer image of it by -psi=IMAGE "
    "(apptainer build tf_server.sif docker://tensorflow/serving), or use the server that comes with the package: "
    "experiments_manager serve RUN."
)


class Problem(Exception):
    """What keeps the server from being started, in one sentence for the user."""


def parse(arguments):
    """Read the command line; its names are those of the legacy framework."""
    parser = argparse.ArgumentParser(
        description="Start TensorFlow Serving on a run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-m", "--model_dir", type=Path, help="the run folder, or a folder of versions")
    parser.add_argument(
        "-psi",
        "--tf_server_container_path",
        "--singularity_tf_server_container_path",
        dest="image",
        metavar="IMAGE",
        default="",
        help="Apptainer image to start",
    )
    parser.add_argument(
        "-v", "--version", metavar="N", default="0", help="serve this version alone; 0 for the newest, and what comes"
    )
    parser.add_argument("-p", "--port", help="port for gRPC, instead of the one in model_serving_setup.ini")
    parser.add_argument("-r", "--rest_port", help="port for REST, likewise; 0 for none")
    parser.add_argument("-c", "--commands", action="store_true", help="show command examples")
    given, further = parser.parse_known_args(arguments)
    if not given.commands and given.model_dir is None:
        parser.error("--model_dir is missing: name a run folder")
    return given, further


def find_versions(model_dir):
    """Return the folder that holds the versions, and the settings of the run."""
    run = model_dir.expanduser()
    if not run.is_dir():
        raise Problem(f"Folder {run} not found. Was the run moved or renamed? Name it where it stands now.")
    run = run.resolve()
    if run.name == "exported_models":
        run = run.parent
    setup = read_setup(run / SETUP_FILE)
    base = run / setup.get("model_base_path", "exported_models")
    if not base.is_dir() and versions_in(run):
        base = run
    if not versions_in(base):
        raise Problem(
            f"No exported model in {base}. Expected folders with numbers for names, got none. "
            "Wait until training has exported a version, or name another run."
        )
    return base, setup


def versions_in(folder):
    """List the numbers of the versions in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if is_number(path.name) and path.is_dir())


def is_number(text):
    """Return whether a text is a whole number; `²` is a digit for Python, and none."""
    return text.isascii() and text.isdigit()


def read_setup(file):
    """Read the section SERVER of model_serving_setup.ini; nothing if the file is missing."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(file, encoding="utf-8")
        return dict(parser["SERVER"]) if parser.has_section("SERVER") else {}
    except (configparser.Error, UnicodeDecodeError) as error:
        raise Problem(f"{file} is damaged: {error}. Fix it, or remove it.") from error


def read_port(given, flag, setup, key, default):
    """Return the port that a flag names, or else the setup file."""
    text = setup.get(key, default) if given is None else given
    if not is_number(text) or len(text) > 5 or int(text) > 65535:
        place = f"{key} in {SETUP_FILE}" if given is None else flag
        raise Problem(f"{place} is not a port. Expected a whole number from 0 to 65535, got {text!r}. Change it.")
    return int(text)


def check_port(port, flag):
    """Refuse a port that another process listens on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise Problem(f"Port {port} cannot be used: {error.strerror}. Choose another by {flag}.") from error


def server_command(base, setup, given):
    """Put the server's command line together."""
    port = read_port(given.port, "--port", setup, "port", "9000")
    rest_port = read_port(given.rest_port, "--rest_port", setup, "rest_port", "8501")
    name = setup.get("model_name", "default")
    check_port(port, "--port")
    if rest_port:
        check_port(rest_port, "--rest_port")
    version = read_version(given.version, base)
    image = given.image
    inside = INSIDE if image else base
    if not image and not shutil.which(BINARY):
        raise Problem(NO_BINARY)
    model, files = [f"--model_name={name}", f"--model_base_path={inside}"], []
    prefix = container_prefix(image, base) if image else []
    if version:
        files = [write_config(name, inside, version)]
        model = [f"--model_config_file={files[0]}"]
    if image:
        prefix += [*(part for file in files for part in ("--bind", f"{file}:{file}:ro")), image_file(image)]
    return [*prefix, BINARY, f"--port={port}", f"--rest_api_port={rest_port}", *model]


def read_version(text, base):
    """Return the one version that is asked for; 0 for none in particular."""
    there = versions_in(base)
    if not is_number(text) or (int(text) and int(text) not in there):
        listed = ", ".join(map(str, there))
        raise Problem(f"Version {text} not found in {base}. Expected {listed}, or 0 for the newest. Change --version.")
    return int(text)


def write_config(name, base, version):
    """Write a configuration of one version alone, and leave it where the server will look for it."""
    lines = (
        f"    name: {json.dumps(name)}",
        f"    base_path: {json.dumps(str(base), ensure_ascii=False)}",
        '    model_platform: "tensorflow"',
        f"    model_version_policy {{ specific {{ versions: {version} }} }}",
    )
    descriptor, file = tempfile.mkstemp(prefix="model_server_", suffix=".config")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        print("model_config_list {", "  config {", *lines, "  }", "}", sep="\n", file=stream)
    return file


def image_file(image):
    """Return the image as Apptainer is to be told of it."""
    return str(Path(image).expanduser())


def container_prefix(image, base):
    """Return the beginning of a command that runs in an image, up to the image, with the folder of versions mounted."""
    if not Path(image_file(image)).exists():
        raise Problem(
            f"Image {image} not found. Make one: apptainer build {shlex.quote(image)} docker://tensorflow/serving"
        )
    program = shutil.which("apptainer") or shutil.which("singularity")
    if not program:
        raise Problem(NO_APPTAINER)
    if set(str(base)) & set(":,"):
        raise Problem(f"{base} has `:` or `,` in its name, which cannot be mounted in a container. Rename the folder.")
    gpu = ["--nv"] if Path("/proc/driver/nvidia/version").exists() else []
    return [program, "exec", *gpu, "--bind", f"{base}:{INSIDE}:ro"]


def main(arguments=None):
    """Become the server; return an exit code only where it cannot be started."""
    given, further = parse(sys.argv[1:] if arguments is None else arguments)
    if given.commands:
        print(EXAMPLES)
        return 0
    try:
        base, setup = find_versions(given.model_dir)
        command = [*server_command(base, setup, given), *further]
    except (Problem, OSError) as problem:
        print(problem, file=sys.stderr)
        return 2
    if int(given.version):
        print(f"Serving version {int(given.version)} of {base}, and no other.")
    else:
        print(f"Serving version {versions_in(base)[-1]} of {base}, and what training will add there.")
    print(f"TensorFlow Serving listens on every network interface of this machine. {shlex.join(command)}", flush=True)
    try:
        os.execvp(command[0], command)  # signals and the exit code are the server's own from here on
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}. Install it anew.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
