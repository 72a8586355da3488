#!/usr/bin/env python3
"""Build an image, try it, and print its size and how long each step took.

    python3 install/build.py serve                       # the embedded model server
    python3 install/build.py train [--gpu]               # everything
    python3 install/build.py lite                        # the model server for TensorFlow Lite models alone
    python3 install/build.py client                      # the streaming client
    python3 install/build.py serve --base mmdebstrap     # where no registry of images can be reached

| engine | makes | needs |
| --- | --- | --- |
| `apptainer` | a file in `build`, e.g. `tf2_addons.sif` | Apptainer |
| `podman` | the image `experiments_manager:TARGET` | Podman |
| `chroot` | the folder `build/TARGET` | Linux with user namespaces, `mmdebstrap`, `uidmap` |

Run it as an ordinary user. The image is tried as one, too: with a read-only root, no network and no home folder.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import wheelhouse  # noqa: E402
from engines import DEFINITIONS, ENGINES, HERE, LISTS, ROOT, SHARE  # noqa: E402

PYTHON = "3.11"
"""That of Debian 12."""
_RELEASE = "bookworm"
_EPOCH = "1735689600"
"""Seconds since 1970 that files of the base are dated to, so that two builds have the same."""
_PACKAGES = "python3,python3-venv,binutils,ca-certificates"
_SKIPPED = ("doc", "man", "locale", "info")


def make_context(folder: Path, target: str, *, gpu: bool = False) -> Path:
    """Put together what goes into an image: our wheel, the frozen list, its wheels, and the scripts."""
    requirements = HERE / list_of(target, gpu=gpu)
    house = wheelhouse.make(folder / f"wheelhouse-{requirements.stem}", requirements, PYTHON, platform.machine())
    context = folder / "context"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(house / "wheels", context / "wheels", copy_function=os.link)
    for file in (house / "own").glob("*.whl"):
        shutil.copy(file, context / "wheels")
    for file in (requirements, *(HERE / "image").iterdir()):
        shutil.copy(file, context)
    return context


def list_of(target: str, *, gpu: bool) -> str:
    """Return the name of the frozen list that a target is made of."""
    return "requirements-gpu.txt" if gpu else LISTS[target]


def make_base(folder: Path) -> Path:
    """Make the root file system of a Debian with Python from its packages, once, and return its archive."""
    base = folder / "base.tar"
    if not base.exists():
        made = folder / "base.part.tar"
        command = ["mmdebstrap", "--mode=unshare", "--variant=minbase", f"--include={_PACKAGES}", "--quiet"]
        command += ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _SKIPPED)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
        subprocess.run([*command, _RELEASE, str(made)], check=True, env=environment)
        made.rename(base)
    return base


def names_of(target: str, *, gpu: bool) -> dict[str, str]:
    """Return what an image is labelled with, and made of."""
    sys.path.insert(0, str(ROOT))
    from experiments_manager.common.version import __version__

    # A clone that belongs to another user is none to Git unless it is told so.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), "rev-parse", "HEAD"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout if shutil.which("git") else ""
    return {"version": __version__, "commit": told.strip() or "unknown", "list": list_of(target, gpu=gpu)}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=DEFINITIONS)
    parser.add_argument("--base", choices=("registry", "mmdebstrap"), help="default: mmdebstrap for chroot")
    parser.add_argument("--engine", choices=ENGINES, help="default: the first of them that is there")
    parser.add_argument("--gpu", action="store_true", help="with CUDA's libraries")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where it is built")
    given = parser.parse_args()
    engine = given.engine or next((name for name in ("apptainer", "podman") if shutil.which(name)), "chroot")
    base = given.base or ("mmdebstrap" if engine == "chroot" else "registry")
    if (engine, base) == ("chroot", "registry"):
        parser.error("the engine chroot has no registry. Use --base mmdebstrap")
    if given.gpu and given.target != "train":
        parser.error("--gpu is for the target train. Expected no --gpu, or train")
    if os.geteuid() == 0:
        parser.error("an image is built by an ordinary user. Expected one, got root. Run: su USER -c '…'")
    if missing := [name for name in _programs(engine, base) if not shutil.which(name)]:
        parser.error(f"{', '.join(missing)} not found on the PATH. Install what install/README.md names")
    build(given.folder.absolute(), given.target, engine, base, gpu=given.gpu)
    return 0


def _programs(engine: str, base: str) -> list[str]:
    own = {"apptainer": ["apptainer"], "podman": ["podman"], "chroot": ["unshare", "newuidmap", "ip"]}[engine]
    return [*own, *(["mmdebstrap", "newuidmap"] if base == "mmdebstrap" else [])]


def build(folder: Path, target: str, engine: str, base: str, *, gpu: bool) -> None:
    """Build an image, try it, and say what it came to."""
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor() as pool:  # each waits for its server most of the time
        base_made = pool.submit(_timed, "base", lambda: make_base(folder)) if base == "mmdebstrap" else None
        context = _timed("wheels", lambda: make_context(folder, target, gpu=gpu))
        archive = base_made.result() if base_made else None
    chosen = ENGINES[engine]
    names = names_of(target, gpu=gpu)
    image = _timed("image", lambda: chosen.build(folder, target, archive, context, names))
    _timed("test", lambda: chosen.run(image, "sh", f"{SHARE}/test.sh"))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # on a busy machine, most of the time is waiting
    took = f"{time.monotonic() - begin:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of a processor"
    file = f"; the file has {Path(image).stat().st_size / 1e6:.0f} MB" if Path(image).is_file() else ""
    print(f"{image}: {chosen.size(image) / 1e6:.0f} MB, made in {took}{file}")  # noqa: T201


def _timed(step: str, work):  # noqa: ANN001, ANN202
    print(f"{step} …", flush=True)  # noqa: T201
    start = time.monotonic()
    result = work()
    print(f"{step}: {time.monotonic() - start:.1f} s", flush=True)  # noqa: T201
    return result


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"{shlex.join(map(str, error.cmd[:1]))} failed with code {error.returncode}; what it said stands above."
        )
