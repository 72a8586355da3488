"""Which engine is started, with which command line, and how it ends."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments_manager.common.console import command_line
from experiments_manager.export import model_folders
from experiments_manager.export.model_folders import find_target, wait_for_version
from experiments_manager.protocol import messages
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.text_format import parse_text_proto
from experiments_manager.runs.folder import create_run
from experiments_manager.runs.locking import lock
from experiments_manager.runs.serving_setup import ServingSetup, write_serving_setup
from experiments_manager.serving.launch import engines, external_process
from experiments_manager.serving.launch.engines import Service, check_ports, choose_engine, command, write_config
from experiments_manager.serving.launch.serve import announcement, example, serve, service_of
from experiments_manager.serving.launch.serve_options import Engine, ServeOptions
from experiments_manager.serving.server.flag_table import ServerFlags
from tests import helpers

FAKE = Path(helpers.__file__).with_name("fake_tensorflow_model_server.py")


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Puts programs on an otherwise empty path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("FAKE_SERVER_NOTE", str(tmp_path / "note.json"))

    def put(name):
        file = folder / name
        file.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return file

    return put


@pytest.fixture
def run(tmp_path):
    made = create_run(tmp_path / "runs", "line", run_name="line")
    made.update(state="running", settings_file="settings/mysettings_line.py")
    return made


@pytest.fixture
def models(tmp_path):
    """A plain folder with a version 7."""
    (tmp_path / "digits" / "7").mkdir(parents=True)
    return tmp_path / "digits"


# What is served


def test_a_run_its_exports_a_version_of_them_and_any_folder_of_versions_can_be_served(run, models):
    (run.exports_dir / "20").mkdir(parents=True)
    write_serving_setup(run.path, ServingSetup("localhost", 9100, 9101, "mysettings_line"))
    for path in (run.path, run.exports_dir, run.exports_dir / "20"):
        target = find_target(path)
        assert (target.base_path, target.model_name, target.setup.port) == (run.exports_dir, "mysettings_line", 9100)
    target = find_target(models)
    assert (target.base_path, target.model_name, target.run) == (models, "digits", None)
    assert find_target(models, "other").model_name == "other"


def test_a_run_without_the_setup_file_is_served_under_the_name_of_its_settings(run):
    assert find_target(run.path).model_name == "mysettings_line"


def test_a_run_that_has_just_begun_is_found_by_its_settings(run):
    settings = {"server_host": "robot", "grpc_port": 9200, "rest_port": 0, "model_file": "/somewhere/model_cnn.py"}
    run.update(model_file="settings/model_cnn.py", settings=settings)
    target = find_target(run.path)
    assert target.model_name == "model_cnn"
    assert target.setup == ServingSetup("robot", 9200, 0, "model_cnn")
    assert target.base_path == run.exports_dir


def test_a_run_of_the_legacy_framework_is_served_as_its_setup_file_says(tmp_path):
    folder = tmp_path / "my_test_2023-03-26--20:07:36" / "expe_0"
    (folder / "exported_models" / "1").mkdir(parents=True)
    (folder / "exported_models" / "modelserving.signatures").touch()
    (folder / "model_serving_setup.ini").write_text("[SERVER]\nhost = robot\nport = 9100\nmodel_name = model_cnn\n")
    for path in (folder, folder / "exported_models"):
        target = find_target(path)
        assert (target.base_path, target.model_name, target.run) == (folder / "exported_models", "model_cnn", None)
        assert (target.setup.host, target.setup.port) == ("robot", 9100)


def test_a_run_that_was_moved_is_served_from_where_it_stands_now(run, tmp_path):
    (run.exports_dir / "20").mkdir(parents=True)
    write_serving_setup(run.path, ServingSetup("localhost", 9100, 9101, "m"))
    run.path.rename(tmp_path / "moved")
    assert find_target(tmp_path / "moved").base_path == tmp_path / "moved" / "exported_models"
    with pytest.raises(ServerStartError, match="There is no run folder .*If the run was moved, give its present path"):
        find_target(run.path)


def test_a_folder_with_nothing_to_serve_is_named(tmp_path, run):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ServerStartError, match=f"No exported model in {tmp_path}/empty, and no running training"):
        find_target(tmp_path / "empty")
    with pytest.raises(ServerStartError, match="It holds 1 run; name it, e.g. .*runs/line"):
        find_target(tmp_path / "runs")
    (tmp_path / "empty" / "saved_model.pb").touch()
    with pytest.raises(ServerStartError, match="is a SavedModel itself"):
        find_target(tmp_path / "empty")


# Waiting for the first version


def test_a_version_that_is_there_is_not_waited_for(models):
    assert wait_for_version(find_target(models), pytest.fail) == 7


def test_the_first_version_of_a_run_is_waited_for_and_that_is_said_once(run):
    said = []

    def tell(text):
        said.append(text)
        threading.Timer(0.5, lambda: (run.exports_dir / "20").mkdir(parents=True)).start()

    with lock(run):
        assert wait_for_version(find_target(run.path), tell) == 20
    assert said == [f"Waiting for the first version in {run.exports_dir}: training has not exported one yet."]


@pytest.mark.parametrize(
    ("state", "message"),
    [("finished", "the run is finished"), ("failed", "the run is failed. Go on"), ("interrupted", "manager resume")],
)
def test_a_run_that_has_ended_without_a_version_is_not_waited_for(run, state, message):
    run.update(state=state)
    with pytest.raises(ServerStartError, match=f"No exported model in {run.exports_dir}.*{message}"):
        wait_for_version(find_target(run.path), pytest.fail)


def test_a_run_that_exports_nothing_is_not_waited_for(run):
    run.update(settings={"export": False})
    with lock(run), pytest.raises(ServerStartError, match="none will come: the run's settings say `export = False`"):
        wait_for_version(find_target(run.path), pytest.fail)


def test_a_run_that_was_killed_is_not_waited_for_long(run, monkeypatch):
    monkeypatch.setattr(model_folders, "GRACE", 0.3)
    with pytest.raises(ServerStartError, match="no process trains the run"):
        wait_for_version(find_target(run.path), lambda text: None)


def test_waiting_ends_when_it_is_told_to(run):
    with lock(run):
        assert wait_for_version(find_target(run.path), lambda text: None, should_stop=lambda: True) is None


# Engines


def test_auto_takes_the_binary_where_it_is_on_the_path(on_path):
    assert choose_engine(Engine.AUTO) == Engine.EMBEDDED
    on_path("tensorflow_model_server")
    assert choose_engine(Engine.AUTO) == Engine.TENSORFLOW_MODEL_SERVER
    assert choose_engine(Engine.EMBEDDED) == Engine.EMBEDDED


def test_auto_takes_an_image_where_one_is_named(on_path, tmp_path):
    on_path("singularity")
    (tmp_path / "tf_server.sif").touch()
    assert choose_engine(Engine.AUTO, tmp_path / "tf_server.sif") == Engine.APPTAINER


@pytest.mark.parametrize(
    ("engine", "image", "message"),
    [
        (
            Engine.TENSORFLOW_MODEL_SERVER,
            None,
            "tensorflow_model_server is not on the path. Install TensorFlow Serving",
        ),
        (Engine.APPTAINER, None, "needs an image. Give one by --image FILE. To make one: apptainer build"),
        (Engine.APPTAINER, "missing.sif", "Image missing.sif not found. Check the path, or make one"),
        (Engine.APPTAINER, str(FAKE), "Install Apptainer.*conda install -c conda-forge apptainer"),
        (Engine.EMBEDDED, "x.sif", "Leave --image away"),
    ],
)
def test_an_engine_that_is_missing_is_told_with_how_to_get_it(on_path, engine, image, message):
    with pytest.raises(ServerStartError, match=message):
        choose_engine(engine, image)


def test_libraries_that_the_embedded_engine_lacks_are_named(monkeypatch):
    monkeypatch.setattr(
        "experiments_manager.serving.server.preflight.EMBEDDED_NEEDS", ("grpc", "there_is_no_such_module")
    )
    with pytest.raises(ServerStartError, match=r"needs there_is_no_such_module, .*pip install 'grpcio"):
        choose_engine(Engine.EMBEDDED)


def test_the_command_to_try_names_certificates_and_tokens(run, tmp_path):
    (run.exports_dir / "20").mkdir(parents=True)
    options = ServeOptions(ssl_config_file=tmp_path / "tls", auth_token_file=tmp_path / "tokens")
    target = find_target(run.path)
    told = example(service_of(target, options), target)
    assert told.endswith(f" --ssl-config-file {tmp_path}/tls --auth-token-file {tmp_path}/tokens")


def test_the_command_to_try_names_the_model_where_the_run_does_not(run):
    (run.exports_dir / "20").mkdir(parents=True)
    for options, ending in ((ServeOptions(model_name="my digits"), " --model-name 'my digits'"), (ServeOptions(), "")):
        target = find_target(run.path, options.model_name)
        told = example(service_of(target, options), target)
        assert told == command_line("predict", str(run.path), "--address", "127.0.0.1:9000") + ending


def test_a_host_of_another_machine_is_not_taken_for_a_port_in_use():
    with pytest.raises(ServerStartError, match=r"^192\.0\.2\.1 is not an address of this machine.* Change --host"):
        check_ports(ServerFlags(host="192.0.2.1"))


def test_tensorflow_serving_takes_the_same_flags_on_the_path_and_in_a_container(models, on_path, tmp_path):
    program = on_path("apptainer")
    (tmp_path / "ssl").touch()
    options = {"port": 9100, "rest_api_port": 9101, "model_name": "digits", "ssl_config_file": f"{tmp_path}/ssl"}
    service = Service(ServerFlags(model_base_path=str(models), host="0.0.0.0", **options), gpu=True)
    flags = ["--port=9100", "--rest_api_port=9101", "--model_name=digits", f"--model_base_path={models}"]
    flags.append(f"--ssl_config_file={tmp_path}/ssl")
    assert command(Engine.TENSORFLOW_MODEL_SERVER, service) == ["tensorflow_model_server", *flags]
    flags[3] = "--model_base_path=/models/served"
    assert command(Engine.APPTAINER, service, "tf.sif") == [
        *(str(program), "exec", "--nv", "--bind", f"{models}:/models/served:ro"),
        *("--bind", f"{tmp_path}/ssl:{tmp_path}/ssl:ro", "tf.sif", "tensorflow_model_server", *flags),
    ]


def test_one_version_alone_is_served_by_all_engines_from_a_file_of_their_own_flag(models, on_path, tmp_path):
    on_path("apptainer")
    (tmp_path / "tf.sif").touch()
    file = tmp_path / 'models "of mine".config'
    service = Service(ServerFlags(model_base_path=str(models), model_name="digits", model_config_file=str(file)))
    for engine, base_path in (
        (Engine.EMBEDDED, str(models)),
        (Engine.TENSORFLOW_MODEL_SERVER, str(models)),
        (Engine.APPTAINER, "/models/served"),
    ):
        write_config(file, engine, service, 7)
        if engine != Engine.EMBEDDED:
            line = command(engine, service, tmp_path / "tf.sif")
            assert f"--model_config_file={file}" in line
            assert not [word for word in line if word.startswith(("--model_name", "--model_base_path"))]
            assert (engine == Engine.APPTAINER) == (f"{file}:{file}:ro" in line)
        [config] = parse_text_proto(file, messages.ModelServerConfig()).model_config_list.config
        assert (config.name, config.base_path, config.model_platform) == ("digits", base_path, "tensorflow")
        assert list(config.model_version_policy.specific.versions) == [7]


def test_a_version_that_is_not_there_is_told_with_those_that_are(models, free_port):
    (models / "12").mkdir()
    options = ServeOptions(Engine.EMBEDDED, grpc_port=free_port(), rest_port=free_port(), model_version=8)
    with pytest.raises(ServerStartError, match=r"Version 8 not found in .*digits. Expected 7, 12\."):
        serve(models, options)


def test_a_folder_that_cannot_be_mounted_is_told(on_path, tmp_path):
    on_path("apptainer")
    with pytest.raises(ServerStartError, match="Rename the folder"):
        command(Engine.APPTAINER, Service(ServerFlags(model_base_path="/runs/2020-03-10--21:59")), "tf.sif")


def test_tokens_are_not_left_to_an_engine_that_does_not_know_them(models, tmp_path):
    options = ServeOptions(auth_token_file=tmp_path / "tokens")
    with pytest.raises(ServerStartError, match="does not support tokens, so it would answer requests without one"):
        service_of(find_target(models), options, Engine.TENSORFLOW_MODEL_SERVER)


def test_limits_come_from_the_command_line_then_the_run_then_the_engines_defaults(run, models):
    def limits(path, **options):
        flags = service_of(find_target(path), ServeOptions(**options)).flags
        return flags.max_message_bytes, flags.max_in_flight

    assert limits(models) == (ServerFlags.max_message_bytes, ServerFlags.max_in_flight)
    assert limits(models, max_in_flight=3) == (ServerFlags.max_message_bytes, 3)
    run.update(settings={"max_message_bytes": 1000, "max_in_flight": 8})
    assert limits(run.path) == (1000, 8)
    assert limits(run.path, max_in_flight=0) == (1000, 0)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (
            {"max_message_bytes": 1000},
            "no flag .*: it takes messages of up to 2 GiB. Expected no --max-message-bytes, got",
        ),
        ({"max_in_flight": 8}, "no flag .*: it queues .* max_enqueued_batches .* Expected no --max-in-flight, got 8"),
    ],
)
def test_limits_are_not_left_to_an_engine_that_has_no_flag_for_them(limit, message, models):
    with pytest.raises(ServerStartError, match=f"tensorflow_model_server has {message}"):
        service_of(find_target(models), ServeOptions(**limit), Engine.TENSORFLOW_MODEL_SERVER)


def test_an_engine_that_ignores_the_runs_limit_on_requests_says_so(run, on_path, free_port, note):
    on_path("tensorflow_model_server")
    (run.exports_dir / "7").mkdir(parents=True)
    run.update(settings={"max_message_bytes": 1000, "max_in_flight": 8})
    said = []

    def tell(text):
        said.append(text)
        if text.startswith("Serving"):
            os.kill(os.getpid(), signal.SIGTERM)

    serve(run.path, ServeOptions(grpc_port=free_port(), rest_port=free_port(), prefer_tflite_model=True), tell)
    ignored = (
        "tensorflow_model_server takes any number of requests at once; the run's setting max_in_flight does not count."
    )
    assert ignored in said
    assert note()["arguments"][-1] == "--prefer_tflite_model=true"
    assert not any(argument.startswith("--max") for argument in note()["arguments"])


def test_ports_come_from_the_command_line_then_the_run_then_the_defaults(run, models):
    write_serving_setup(run.path, ServingSetup("localhost", 9100, 9101, "m"))
    flags = service_of(find_target(run.path), ServeOptions(rest_port=0)).flags
    assert (flags.port, flags.rest_api_port) == (9100, 0)
    flags = service_of(find_target(models), ServeOptions()).flags
    assert (flags.port, flags.rest_api_port) == (9000, 8501)


def test_a_gpu_is_left_to_training_unless_the_run_says_otherwise(run, models):
    assert engines.environment(service_of(find_target(models), ServeOptions()))["CUDA_VISIBLE_DEVICES"] == "-1"
    run.update(settings={"serve_on_gpu": True})
    assert service_of(find_target(run.path), ServeOptions()).gpu


# Ports


def test_a_taken_port_is_one_clear_error(models, free_port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for ports, flag in (((port, 0), "--grpc-port"), ((free_port(), port), "--rest-port")):
            with pytest.raises(ServerStartError, match=f"Port {port} on 127.0.0.1 cannot be used: .*by {flag}"):
                check_ports(ServerFlags(port=ports[0], rest_api_port=ports[1]))


def test_two_services_need_two_ports_and_a_host_of_this_machine(models, free_port):
    with pytest.raises(ServerStartError, match="Expected two, got 9000 twice"):
        check_ports(ServerFlags(port=9000, rest_api_port=9000))
    with pytest.raises(ServerStartError, match="Host none.invalid not found"):
        check_ports(ServerFlags(host="none.invalid", port=free_port()))


# TensorFlow Serving as a child process


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except OSError:
        return False


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


@pytest.fixture
def note(tmp_path):
    def read():
        return json.loads((tmp_path / "note.json").read_text())

    return read


def test_serve_starts_the_binary_says_what_it_serves_and_ends_it_on_a_signal(models, on_path, free_port, note):
    on_path("tensorflow_model_server")
    said, ports = [], (free_port(), free_port())

    def tell(text):
        said.append(text)
        if text.startswith("Serving"):
            os.kill(os.getpid(), signal.SIGTERM)

    serve(models, ServeOptions(grpc_port=ports[0], rest_port=ports[1]), tell)
    assert said[-1].splitlines() == [
        f"Serving version 7 of digits from {models} (engine tensorflow_model_server)",
        f"  gRPC    127.0.0.1:{ports[0]}",
        f"  REST    http://127.0.0.1:{ports[1]}/v1/models/digits",
        f"  ask it: curl http://127.0.0.1:{ports[1]}/v1/models/digits/metadata",
    ]
    assert any("every network interface" in text for text in said)
    flags = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}", "--model_name=digits", f"--model_base_path={models}"]
    assert note()["arguments"][1:] == flags
    assert note()["cuda"] == "-1"
    assert not alive(note()["pid"])


def test_a_server_that_does_not_end_is_killed(models, on_path, free_port, note, monkeypatch):
    on_path("tensorflow_model_server")
    monkeypatch.setattr(external_process, "PATIENCE", 0.3)
    options = ServeOptions(model_name="ignores_signals", grpc_port=free_port(), rest_port=free_port())
    serve(models, options, lambda text: text.startswith("Serving") and os.kill(os.getpid(), signal.SIGINT))
    assert not alive(note()["pid"])


def test_a_server_that_ends_by_itself_is_told(models, on_path, free_port):
    on_path("tensorflow_model_server")
    options = ServeOptions(model_name="ends_at_once", grpc_port=free_port(), rest_port=free_port())
    with pytest.raises(ServerStartError, match="tensorflow_model_server ended by itself with exit code 1"):
        serve(models, options, lambda text: None)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells children of their parent's death")
def test_the_binary_ends_with_a_parent_that_is_killed(models, on_path, free_port, note, tmp_path):
    on_path("tensorflow_model_server")
    source = (
        "from experiments_manager.serving.launch.serve import serve\n"
        "from experiments_manager.serving.launch.serve_options import ServeOptions\n"
        "say = lambda text: print(text, flush=True)\n"
        f"serve({str(models)!r}, ServeOptions(grpc_port={free_port()}, rest_port={free_port()}), say)"
    )
    parent = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    with parent:
        wait_until(lambda: parent.stdout.readline().startswith("Serving"))
        parent.kill()
    wait_until(lambda: not alive(note()["pid"]))
    assert parent.returncode == -signal.SIGKILL


def test_the_example_for_a_run_is_the_command_predict(run):
    write_serving_setup(run.path, ServingSetup("localhost", 9100, 9101, "m"))
    target = find_target(run.path)
    text = announcement(service_of(target, ServeOptions()), target, 20, Engine.EMBEDDED)
    assert f"experiments_manager predict {run.path} --address 127.0.0.1:9100" in text
