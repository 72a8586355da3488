"""What is refused before a federation begins."""

import pytest

from experiments_manager import api
from experiments_manager.cli.federation_session import key_files
from experiments_manager.common.errors import CommandLineError
from experiments_manager.federated.deployment.client import ServerEndpoint
from experiments_manager.federated.deployment.server import Deployment
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.verbs import join_as_before
from tests.helpers.federation_commands import SETTINGS


@pytest.fixture
def file(tmp_path):
    """A settings module that joins a federation, as those of the legacy framework do."""
    (tmp_path / "mysettings.py").write_text(SETTINGS + "\nenable_federated_learning = True\n")
    return tmp_path / "mysettings.py"


def test_a_file_that_joins_a_federation_does_not_train_alone(file):
    with pytest.raises(FederationError, match="Expected False to train alone"):
        api.train(file)


def test_a_legacy_client_needs_a_number(file):
    with pytest.raises(FederationError, match="Give --procID K"):
        join_as_before(api.load_settings(file))


def test_a_legacy_client_on_another_machine_than_the_server_is_told_of_certificates(file):
    overrides = {"federated_learning_server_address": "example.org:8080", "hparams.procID": 3}
    with pytest.raises(FederationError, match=r"--proc-id 3 --server example\.org:8080 --ca-certificate FILE"):
        join_as_before(api.load_settings(file, overrides))


def test_the_number_of_a_client_is_not_negative(file):
    with pytest.raises(FederationError, match="Expected 0 or more, got -1"):
        api.join_federation(file, -1, ServerEndpoint("127.0.0.1:9092", insecure=True))


def test_a_deployment_is_kept_with_absolute_paths_and_read_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("server.crt", "server.key", "one.pub"):
        (tmp_path / name).touch()
    made = Deployment.make("0.0.0.0:1", certificate="server.crt", key="server.key", public_keys=["one.pub"])
    assert made.to_json() == {
        "address": "0.0.0.0:1",
        "certificate": str(tmp_path / "server.crt"),
        "key": str(tmp_path / "server.key"),
        "public_keys": [str(tmp_path / "one.pub")],
        "insecure": False,
    }
    assert Deployment.of({"kind": "deployment", "clients": 2, **made.to_json()}) == made


def test_a_certificate_needs_its_key(tmp_path):
    (tmp_path / "server.crt").touch()
    with pytest.raises(FederationError, match="Expected a certificate and its key"):
        Deployment.make("127.0.0.1:1", certificate=tmp_path / "server.crt")


def test_public_keys_are_files_a_folder_or_what_a_shell_makes_of_a_pattern(tmp_path):
    for name in ("a.pub", "b.pub", "a"):
        (tmp_path / name).touch()
    both = [tmp_path / "a.pub", tmp_path / "b.pub"]
    assert key_files([tmp_path], []) == both
    assert key_files(both[:1], [str(both[1])]) == both
    with pytest.raises(CommandLineError, match="'5' is not understood"):
        key_files(both, ["5"])
    with pytest.raises(CommandLineError, match="holds no public keys"):
        (tmp_path / "empty").mkdir()
        key_files([tmp_path / "empty"], [])
