"""The command line of `experiments-model-server`, which is that of `tensorflow_model_server`."""

import importlib.metadata
import logging
import socket
import subprocess
import sys
import types

import pytest

from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.models.version_policy import LabelRule
from experiments_manager.serving.server import flags
from experiments_manager.serving.server.flag_table import FLAGS, IGNORED, ServerFlags

ASKED_FOR = [
    "port",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "model_name",
    "model_base_path",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "file_system_poll_wait_seconds",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "grpc_socket_path",
    "grpc_channel_arguments",
    "ssl_config_file",
    "prefer_tflite_model",
    "enable_model_warmup",
    "max_num_load_retries",
    "load_retry_interval_micros",
    "num_load_threads",
    "version",
]


def test_every_flag_that_a_user_of_tensorflow_serving_needs_has_a_meaning():
    assert [name for name in ASKED_FOR if name not in FLAGS] == []


def test_defaults_are_those_of_tensorflow_model_server():
    values = flags.parse([])
    assert (values.port, values.rest_api_port, values.model_name) == (8500, 0, "default")
    assert (values.max_num_load_retries, values.load_retry_interval_micros) == (5, 60_000_000)
    assert (values.file_system_poll_wait_seconds, values.rest_api_timeout_in_ms) == (1, 30000)
    assert (values.enable_model_warmup, values.enable_batching, values.host) == (True, False, "127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--port=9000"], "port", 9000),
        (["--port", "9000"], "port", 9000),
        (["--enable_batching"], "enable_batching", True),
        (["--enable_batching=true"], "enable_batching", True),
        (["--enable_model_warmup=false"], "enable_model_warmup", False),
        (["--enable_model_warmup=0"], "enable_model_warmup", False),
        (["--enable_batching", "--port=1"], "port", 1),
        (["--auth-token-file=t"], "auth_token_file", "t"),
        (["--model_name=a=b"], "model_name", "a=b"),
        (["--load_retry_interval_micros=-1"], "load_retry_interval_micros", -1),
        (["--use_alts_credentials=false"], "use_alts_credentials", False),
        (["--saved_model_tags=serve"], "saved_model_tags", "serve"),
        (["--enable_serialization_as_tensor_content"], "enable_serialization_as_tensor_content", True),
    ],
)
def test_values_are_read(arguments, name, value):
    assert getattr(flags.parse(arguments), name) == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prot=9000"], "unknown argument: --prot=9000. Did you mean --port?"),
        (["--model_bas_path=x"], "Did you mean --model_base_path?"),
        (["--something_else"], "--help` lists all flags"),
        (["model"], "unknown argument: model"),
        (["-port=1"], "Did you mean --port?"),
        (["--port=many"], "--port: Expected a whole number, got 'many'"),
        (["--enable_batching=maybe"], "Expected true or false, got 'maybe'"),
        (["--port"], "--port: expected one argument"),
        (["--use_alts_credentials"], "is not supported. Without them the server would be open to all"),
        (["--saved_model_tags=train"], "is not supported"),
    ],
)
def test_what_is_not_understood_is_refused(arguments, message):
    with pytest.raises(ServerStartError) as error:
        flags.parse(arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "given",
    [
        ServerFlags(),
        ServerFlags(port=1, host="::1", enable_batching=True, enable_profiler=False, idle_timeout_seconds=2.5),
        ServerFlags(model_name="a=b c", model_base_path="/models/-1", max_num_load_retries=-1),
    ],
)
def test_another_process_is_told_the_same_flags(given):
    assert flags.parse(flags.command_line(given)) == given


def test_flags_without_meaning_are_accepted_and_said_so_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        flags.parse(["--flush_filesystem_caches=false", "--grpc_max_threads=4"])
    assert [record.message for record in caplog.records] == [
        "--flush_filesystem_caches is ignored: the system looks after its caches.",
        "--grpc_max_threads is ignored: gRPC is answered by the event loop.",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Nothing to serve. Expected --model_base_path"),
        (["--model_base_path=x", "--port=8500", "--rest_api_port=8500"], "--rest_api_port cannot be same as --port"),
        (["--model_base_path=x", "--port=0"], "No address to listen on"),
        (["--model_base_path=x", "--port=70000"], "from 0 to 65535"),
        (["--model_base_path=x", "--model_name="], "--model_name is empty"),
        (["--model_base_path=x\0y"], "the base path of default has a NUL character"),
        (["--model_base_path=~nobody-of-this-name/x"], "--model_base_path: Could not determine home directory"),
        (["--model_base_path=x", "--max_connections=0"], "--max_connections: Expected a number of 1 or more, got 0"),
        (["--model_base_path=x", "--max_bytes_in_flight=-1"], "--max_bytes_in_flight: Expected a number of 1 or more"),
        (
            ["--model_base_path=x", "--idle_timeout_seconds=-1"],
            "--idle_timeout_seconds: Expected a number of 0 or more, got -1.0",
        ),
        (
            ["--model_base_path=x", "--body_timeout_seconds=nan"],
            "--body_timeout_seconds: Expected a number of 0 or more",
        ),
        (["--model_base_path=x", "--batching_parameters_file=b"], "without setting --enable_batching"),
        (["--model_base_path=x", "--enable_batching", "--batching_parameters_file=none"], "Cannot read none"),
        (["--model_config_file=none"], "Cannot read none: No such file or directory. Expected a ModelServerConfig"),
        (["--model_base_path=x", "--ssl_config_file=none"], "Cannot read none"),
        (["--model_base_path=x", "--auth_token_file=none"], "Cannot read the token file none"),
        (["--model_base_path=x", "--grpc_channel_arguments=a"], "Expected NAME=VALUE, got 'a'"),
        (
            [
                "--model_base_path=x",
                *(f"--tensorflow_{kind}_parallelism=2" for kind in ("session", "intra_op", "inter_op")),
            ],
            "You cannot configure all",
        ),
    ],
)
def test_flags_that_make_no_sense_end_with_code_2_and_one_sentence(arguments, message, caplog):
    assert flags.run(arguments) == 2
    assert message in caplog.text


def test_flags_and_files_become_options(tmp_path):
    from experiments_manager.serving.server.options import server_options

    (tmp_path / "batching").write_text("max_batch_size { value: 32 } batch_timeout_micros { value: 500 }")
    (tmp_path / "monitoring").write_text("prometheus_config { enable: false }")
    arguments = [
        f"--model_base_path={tmp_path}",
        "--enable_batching",
        f"--batching_parameters_file={tmp_path}/batching",
    ]
    channel = "grpc.max_connection_age_ms=2000,grpc.lb=x,grpc.max_concurrent_streams=4294967295"
    arguments += [f"--grpc_channel_arguments={channel}", "--num_load_threads=3"]
    arguments += ["--max_num_load_retries=1", "--load_retry_interval_micros=250000", "--grpc_socket_path=/tmp/s"]
    options = server_options(flags.parse(arguments))
    assert (options.batching.max_batch_size, options.batching.batch_timeout_micros) == (32, 500)
    assert options.grpc.channel_arguments == (
        ("grpc.max_connection_age_ms", 2000),
        ("grpc.lb", "x"),
        ("grpc.max_concurrent_streams", "4294967295"),  # as there: what is no 32-bit number is a string
    )
    assert (options.grpc.socket_path, options.grpc.port) == ("/tmp/s", 8500)
    loading = options.loading
    assert (loading.threads, loading.max_load_retries, loading.retry_seconds) == (3, 1, 0.25)
    [model] = options.models
    assert (model.name, model.base_path) == ("default", tmp_path)


@pytest.mark.parametrize(
    ("flags_of_threads", "threads"),
    [
        ({}, None),
        ({"session": 4}, (4, 4)),
        ({"intra_op": 2}, (2, -1)),
        ({"intra_op": 2, "session": 4}, (2, -1)),  # the session's number counts where there is no other
        ({"inter_op": 3, "session": 4}, (1, 3)),
        ({"intra_op": 2, "inter_op": 3}, (2, 3)),
    ],
)
def test_threads_of_tensorflow_are_chosen_by_flags(flags_of_threads, threads):
    from experiments_manager.serving.server.options import server_options

    given = [f"--tensorflow_{name}_parallelism={count}" for name, count in flags_of_threads.items()]
    found = server_options(flags.parse(["--model_base_path=/m", *given])).threads
    assert (found and (found.intra_op, found.inter_op)) == threads


def test_a_configuration_of_several_models_is_read(tmp_path):
    from experiments_manager.serving.server.options import server_options

    file = tmp_path / "models"
    file.write_text(
        'model_config_list { config { name: "a" base_path: "/a" } config { name: "b" base_path: "/b" '
        "model_version_policy { latest { num_versions: 2 } } } }"
    )
    options = server_options(flags.parse([f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=5"]))
    assert [model.name for model in options.models] == ["a", "b"]
    assert (options.models[1].policy.count, options.config_poll_seconds) == (2, 5)
    assert [model.name for model in options.read_configs()] == ["a", "b"]
    file.write_text("model_config_list { }")
    assert options.read_configs() == []


def test_a_configuration_with_a_path_that_is_none_ends_the_start_and_not_a_server_that_runs(tmp_path):
    from experiments_manager.serving.server.options import server_options

    config = tmp_path / "models.config"
    config.write_text('model_config_list { config { name: "good" base_path: "/good" } }')
    options = server_options(flags.parse([f"--model_config_file={config}"]))
    models = [r'config { name: "bad" base_path: "/no\000where" }', 'config { name: "good" base_path: "/good" }']
    config.write_text(f"model_config_list {{ {' '.join(models)} }}")
    assert [model.name for model in options.read_configs()] == ["bad", "good"]
    with pytest.raises(ServerStartError, match="the base path of bad has a NUL character"):
        server_options(flags.parse([f"--model_config_file={config}"]))


@pytest.mark.parametrize("content", [b"improperly formatted file", b"model_config_list { config {", b"\xff\xfe"])
def test_a_configuration_file_that_cannot_be_parsed_is_told_in_the_words_of_tensorflow_serving(
    tmp_path, caplog, content
):
    from experiments_manager.serving.server.options import server_options

    file, told = tmp_path / "models", "Error parsing text-format tensorflow.serving.ModelServerConfig: "
    file.write_bytes(content)
    assert flags.run([f"--model_config_file={file}"]) == 2
    assert told in caplog.text
    assert str(file) in caplog.text
    file.write_text("model_config_list {}")
    options = server_options(flags.parse([f"--model_config_file={file}"]))
    file.write_bytes(content)
    with pytest.raises(ServerStartError, match=told):
        options.read_configs()


def test_a_configuration_file_that_is_empty_for_a_moment_changes_nothing(tmp_path):
    from experiments_manager.serving.server.options import server_options

    file = tmp_path / "models"
    file.write_text("")
    options = server_options(flags.parse([f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=5"]))
    assert options.models == []
    with pytest.raises(ServerStartError, match="Taking no action for empty config"):
        options.read_configs()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((), LabelRule.AVAILABLE),
        (("--allow_version_labels_for_unavailable_models",), LabelRule.UNUSED),
        (("--force_allow_any_version_labels_for_unavailable_models",), LabelRule.ANY),
    ],
)
def test_flags_say_which_versions_a_label_may_name(tmp_path, arguments, rule):
    from experiments_manager.serving.server.options import server_options

    assert server_options(flags.parse([f"--model_base_path={tmp_path}", *arguments])).label_rule is rule


def test_a_base_path_may_be_a_uri_of_a_file_and_no_other(tmp_path):
    from experiments_manager.serving.server.options import server_options

    [model] = server_options(flags.parse([f"--model_base_path=file://{tmp_path}"])).models
    assert model.base_path == tmp_path
    with pytest.raises(ServerStartError, match="not local. Expected a folder of this machine, got gs://bucket/m."):
        server_options(flags.parse(["--model_base_path=gs://bucket/m"]))


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["--port=8500", "--rest_api_port=8501"],
            [
                "Running gRPC ModelServer at 127.0.0.1:8500 ...",
                "Exporting HTTP/REST API at:localhost:8501 ...",
                "Entering the event loop ...",
            ],
        ),
        (["--port=0", "--grpc_socket_path=/run/s"], ["Running gRPC ModelServer at UNIX socket /run/s ..."]),
        (["--host=10.0.0.7"], ["Running gRPC ModelServer at 10.0.0.7:8500 ..."]),
    ],
)
def test_a_server_that_answers_says_so_in_the_words_that_scripts_wait_for(arguments, lines, caplog, monkeypatch):
    def run_server(options, *, on_ready, on_waiting):
        rest = options.rest and types.SimpleNamespace(port=8501)
        on_ready(types.SimpleNamespace(grpc=options.grpc, rest=rest))

    monkeypatch.setattr("experiments_manager.serving.server.server.run_server", run_server)
    monkeypatch.setattr(flags, "check_port", lambda *arguments: None)
    with caplog.at_level(logging.INFO):
        assert flags.run(["--model_base_path=/m", *arguments]) == 0
    assert [record.message for record in caplog.records if record.name == flags.__name__] == lines


def test_help_names_every_flag_and_version_both_libraries(capsys):
    assert flags.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in [*FLAGS, *IGNORED] if f"--{name} " not in shown] == []
    assert flags.run(["--version"]) == 0
    assert "TensorFlow ModelServer: experiments-manager" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ({"tensorflow": "2.21.0"}, "2.21.0"),
        ({"tensorflow-cpu": "2.21.1"}, "2.21.1"),
        ({}, "none; TensorFlow Lite models alone"),
    ],
)
def test_version_names_tensorflow_whichever_build_of_it_is_installed(installed, told, monkeypatch):
    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr("importlib.metadata.version", version)
    assert flags.versions().splitlines()[1] == f"TensorFlow Library: {told}"


@pytest.mark.parametrize(
    "program",
    [
        "from experiments_manager.serving.server import flags; flags.run = lambda _: 7; flags.main()",
        "from experiments_manager.cli import entry, main; import experiments_manager.serving.server.server; "
        "main.run = lambda _: 7; entry.main()",
    ],
)
def test_a_server_ends_before_python_takes_itself_down_while_grpcs_thread_is_at_work(program):
    program = f"import atexit; atexit.register(print, 'Python takes itself down'); print('done'); {program}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (7, "done\n"), ended.stderr


def test_a_port_in_use_is_told_before_any_model_is_loaded(caplog, monkeypatch):
    monkeypatch.setattr("experiments_manager.serving.server.server.run_server", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert flags.run([f"--rest_api_port={port}", "--port=0", "--model_base_path=/models"]) == 2
    assert f"Port {port} on 127.0.0.1 cannot be used" in caplog.text
    assert "Choose another by --rest_api_port" in caplog.text
