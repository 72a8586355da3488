"""What is refused before a server loads anything."""

import socket

import pytest

from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.server.flags import run
from experiments_manager.serving.server.preflight import check_socket


def test_a_socket_that_is_taken_or_cannot_be_made_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)  # a path of a socket is short
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind("taken.sock")
        taken.listen()
        assert run(["--model_base_path=none", "--port=0", "--grpc_socket_path=taken.sock"]) == 2
        assert "The socket taken.sock is in use by another server. Expected one that is free" in caplog.text
    check_socket("taken.sock", "--grpc_socket_path")  # its server is gone
    check_socket("new.sock", "--grpc_socket_path")
    (tmp_path / "file").touch()
    for path, problem in (("file", "is no socket"), ("none/a.sock", "folder that exists"), ("x" * 120, "at most 107")):
        with pytest.raises(ServerStartError, match=problem):
            check_socket(path, "--grpc_socket_path")
