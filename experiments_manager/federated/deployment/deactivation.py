"""Sign a SuperNode off that was killed: else the server lets it in again only after a minute."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from experiments_manager.federated.deployment.addresses import Address

logger = logging.getLogger(__name__)

_ID = re.compile(r"SuperNode ID: (\d+)")


def sign_off(said: str, server: Address, ca_certificate: Path, private_key: Path) -> None:
    """Tell a server that a SuperNode is gone; that this fails is no error, since the server notices it by itself.

    Flower has no program for it. Its SuperNode does the same when it ends in order.

    Args:
        said: What the SuperNode wrote; its number is in there.
        server: Where the server of the federation listens.
        ca_certificate: What its certificate is signed with.
        private_key: Whose the SuperNode was.
    """
    from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    if not (found := _ID.findall(said)):
        return
    try:
        key = load_ssh_private_key(private_key.read_bytes(), None)
        signing = [
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ]
        with FleetHttpClient.from_server_address(
            str(server), False, str(ca_certificate), interceptors=signing
        ) as client:
            client.DeactivateNode(DeactivateNodeRequest(node_id=int(found[-1])))
    except Exception as error:  # the server may be gone as well, which is the usual reason to be here
        logger.debug("SuperNode %s was not signed off: %s", found[-1], error)
