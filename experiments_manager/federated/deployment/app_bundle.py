"""The Flower app of a federation: two modules of one line, which Flower takes to where they run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from experiments_manager.federated.deployment.programs import call

CONNECTION = "federation"
"""What our SuperLink is called in the configuration of Flower."""
_PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "federation"
version = "1.0.0"
description = "Hands messages over to experiments_manager."
license = "MIT"
dependencies = []

[tool.flwr.app]
publisher = "experiments-manager"

[tool.flwr.app.components]
serverapp = "federation_app.server:app"
clientapp = "federation_app.client:app"

[tool.flwr.app.config]
"""
_MODULE = "from experiments_manager.federated.deployment.forwarding import {name}\n\napp = {name}\n"


def write_app(folder: Path) -> Path:
    """Write the app into a folder and return that."""
    shutil.rmtree(folder, ignore_errors=True)  # of a server that ended, and whose run goes on
    modules = folder / "federation_app"
    modules.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(_PROJECT)
    (modules / "__init__.py").write_text("")
    for name in ("server", "client"):
        (modules / f"{name}.py").write_text(_MODULE.format(name=f"{name}_app"))
    return folder


def write_connection(home: Path, address: str, ca_certificate: Path | None) -> None:
    """Write where the SuperLink is into the configuration of Flower, as a home has it.

    Args:
        home: The folder that `make_home` made.
        address: Of the SuperLink, `host:port`.
        ca_certificate: The certificate that its own is signed with; None without TLS.
    """
    trust = f"root-certificates = {json.dumps(str(ca_certificate))}" if ca_certificate else "insecure = true"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "{address}"\n{trust}\n'
    )


def submit(home: Path) -> None:
    """Hand the app over to the SuperLink, which starts it at once.

    Raises:
        FederationError: Flower refused it; its own words are in the message.
    """
    call("flwr", ["run", write_app(home / "app"), CONNECTION], home)
