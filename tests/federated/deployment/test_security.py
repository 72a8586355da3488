"""What is refused before anything of Flower starts, and the files of keys and certificates."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from experiments_manager.federated.deployment.certificates import make_certificates, make_key_pair
from experiments_manager.federated.deployment.client import ServerEndpoint, run_client
from experiments_manager.federated.deployment.server import Deployment, running_server
from experiments_manager.federated.errors import FederationError

HERE, ELSEWHERE = "127.0.0.1:9092", "0.0.0.0:9092"


@pytest.fixture
def security(tmp_path):
    """A certificate and one key of a client."""
    made = make_certificates(tmp_path / "tls", ["127.0.0.1"])
    public_keys = [str(make_key_pair(tmp_path / "key"))]
    return {"certificate": str(made.certificate), "key": str(made.key), "public_keys": public_keys}


def start_server(address, **security):
    """Starts a server that should be refused."""
    with running_server(Deployment(address, **security)):
        pass


def start_client(server, **security):
    """Starts a client that should be refused."""
    run_client(lambda kind, content: content, ServerEndpoint(server, **security), 1)


def test_a_server_without_a_certificate_must_be_asked_for():
    with pytest.raises(FederationError, match="Give `--certificate FILE --key FILE`, or `--insecure`"):
        start_server(HERE)


def test_a_server_without_tls_is_for_this_machine_alone():
    with pytest.raises(FederationError, match=r"A server without TLS at 0\.0\.0\.0:9092 would let everybody"):
        start_server(ELSEWHERE, insecure=True)


def test_a_server_is_not_both_secure_and_insecure(security):
    with pytest.raises(FederationError, match="Expected one of both"):
        start_server(HERE, **security, insecure=True)


def test_a_server_names_the_file_that_is_missing(security, tmp_path):
    with pytest.raises(FederationError, match="nobody.pub is not there"):
        start_server(HERE, **{**security, "public_keys": [str(tmp_path / "nobody.pub")]})


def test_a_client_without_tls_must_be_asked_for():
    with pytest.raises(FederationError, match="Give `--ca-certificate FILE`, or `--insecure`"):
        start_client(HERE)


def test_a_client_without_tls_speaks_to_this_machine_alone():
    with pytest.raises(FederationError, match=r"Without TLS everybody on the network to example\.org:9092"):
        start_client("example.org:9092", insecure=True)


def test_a_client_names_the_file_that_is_missing(tmp_path):
    with pytest.raises(FederationError, match="ca.crt is not there"):
        start_client(HERE, ca_certificate=tmp_path / "ca.crt")


def test_private_keys_are_for_their_owner_and_are_not_written_over(tmp_path):
    make_key_pair(tmp_path / "key")
    made = make_certificates(tmp_path / "tls", ["localhost"])
    for secret in (tmp_path / "key", made.key):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        make_key_pair(tmp_path / "key")


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
def test_keys_are_as_ssh_keygen_makes_them(tmp_path):
    public = make_key_pair(tmp_path / "key")
    told = subprocess.run(["ssh-keygen", "-l", "-f", public], capture_output=True, text=True)
    assert told.stdout.startswith("384 ") and "(ECDSA)" in told.stdout, told.stderr


def test_the_app_that_flower_runs_imports_no_tensorflow():
    code = (
        "import sys; import experiments_manager.federated.deployment.forwarding; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


def test_a_trainer_that_is_gone_is_told_in_the_reply(tmp_path, monkeypatch):
    from flwr.app import Message, RecordDict

    from experiments_manager.compat.flower import take_identity
    from experiments_manager.federated.deployment import forwarding

    take_identity(run=1, node=2, task=3)
    monkeypatch.setenv(forwarding.SOCKET, str(tmp_path / "gone.sock"))
    reply = forwarding.client_app(Message(RecordDict(), 2, "train"), None)
    assert reply.error.code == forwarding.TRAINER_GONE
    assert f"does not answer at '{tmp_path}/gone.sock'" in reply.error.reason
