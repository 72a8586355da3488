#!/usr/bin/env python3
"""Build an image, try it, and print its size and how long each step took.

    python3 install/build.py serve                       # the embedded model server
    python3 install/build.py train [--gpu]               # everything
    python3 install/build.py serve --base mmdebstrap     # where no registry of images can be reached

| engine | makes | needs |
| --- | --- | --- |
| `apptainer` | `build/TARGET.sif` | Apptainer |
| `chroot` | the folder `build/TARGET` | Linux with user namespaces, `mmdebstrap`, `uidmap` |

Run it as an ordinary user. The image is tried as one, too: with a read-only root, no network and no home folder.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import wheelhouse  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DEFINITIONS = {"train": "tf2_addons.def", "serve": "tf_server_embedded.def"}
LISTS = {"train": "requirements.txt", "serve": "requirements-serving.txt"}
PYTHON = "3.11"
"""That of Debian 12."""
_PACKAGES = "python3,python3-venv,binutils,ca-certificates"
_SKIPPED = ("doc", "man", "locale", "info")
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork", "--kill-child"]
_DEVICES = "null zero full random urandom"
_MOUNTS = f"""
mount -t tmpfs -o mode=755 none "$root/dev"
for device in {_DEVICES}; do : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mkdir "$root/dev/shm"; mount -t tmpfs -o mode=1777 none "$root/dev/shm"
mount -t proc none "$root/proc" || mount --rbind /proc "$root/proc"
mount -t tmpfs -o mode=1777 none "$root/tmp"
"""
_BUILD = f"""
set -eu
root=$1 base=$2 context=$3 list=$4
rm -rf "$root"; mkdir -p "$root"
tar -C "$root" --exclude='./dev/*' -xpf "$base"
mkdir -p "$root/opt/build"
mount --bind "$context" "$root/opt/build"
{_MOUNTS}
chroot "$root" /bin/sh /opt/build/post.sh "$list"
umount "$root/opt/build"; rmdir "$root/opt/build"
"""
_RUN = f"""
set -eu
root=$1; shift
ip link set lo up
mount --bind "$root" "$root"
{_MOUNTS}
mount -o remount,bind,ro "$root"
exec chroot --userspec=12345:12345 "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin LC_ALL=C.UTF-8 "$@"
"""


def make_context(folder: Path, target: str, *, gpu: bool = False) -> Path:
    """Put together what goes into an image: our wheel, the frozen list, its wheels, and the scripts."""
    requirements = HERE / ("requirements-gpu.txt" if gpu else LISTS[target])
    house = wheelhouse.make(folder / f"wheelhouse-{requirements.stem}", requirements, PYTHON, platform.machine())
    context = folder / "context"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(house / "wheels", context / "wheels", copy_function=os.link)
    for file in (house / "requirements.txt", *(house / "own").glob("*.whl"), *(HERE / "image").iterdir()):
        shutil.copy(file, context)
    if target == "train":
        shutil.copytree(ROOT / "examples", context / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return context


def make_base(folder: Path) -> Path:
    """Make the root file system of a Debian with Python from its packages, once, and return its archive."""
    base = folder / "base.tar"
    if not base.exists():
        made = folder / "base.part.tar"
        command = ["mmdebstrap", "--mode=unshare", "--variant=minbase", f"--include={_PACKAGES}", "--quiet"]
        command += ["--dpkgopt=force-unsafe-io", *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _SKIPPED)]
        subprocess.run([*command, "bookworm", str(made)], check=True)
        made.rename(base)
    return base


def build_chroot(folder: Path, target: str, base: Path, context: Path) -> Path:
    """Build an image as a folder, and return it."""
    root = folder / target
    command = ["sh", "-c", _BUILD, "build", str(root), str(base), str(context), "requirements.txt"]
    subprocess.run([*_NAMESPACE, *command], check=True)
    return root


def run_chroot(root: Path, *command: str) -> None:
    """Run a command in an image as an ordinary user, with a read-only root and no network."""
    subprocess.run([*_NAMESPACE, "--net", "sh", "-c", _RUN, "run", str(root), *command], check=True)


def definition(target: str, context: Path, base: Path | None) -> str:
    """Return the recipe for Apptainer, with labels, and another base where no registry is used."""
    sys.path.insert(0, str(ROOT))
    from experiments_manager.common.version import __version__

    text = (HERE / DEFINITIONS[target]).read_text(encoding="utf-8")
    told = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    text = text.replace("@VERSION@", __version__).replace("@COMMIT@", told.stdout.strip() or "unknown")
    text = text.replace("    build/context /opt/build", f"    {context} /opt/build")
    if base is None:
        return text
    lines = (
        f"Bootstrap: localimage\nFrom: {base}" if line.startswith("Bootstrap:") else line for line in text.split("\n")
    )
    return "\n".join(line for line in lines if not line.startswith("From: debian"))


def build_apptainer(folder: Path, target: str, base: Path | None, context: Path) -> Path:
    """Build an image for Apptainer, and return it; `base` is an archive, or `None` for the registry's."""
    place = None
    if base is not None:
        place = folder / "base"
        place.mkdir(exist_ok=True)
        subprocess.run(["tar", "-C", str(place), "--exclude=./dev/*", "-xf", str(base)], check=True)
    recipe = folder / f"{target}.def"
    recipe.write_text(definition(target, context, place), encoding="utf-8")
    image = folder / f"{target}.sif"
    subprocess.run(["apptainer", "build", "--force", "--notest", str(image), str(recipe)], check=True)
    return image


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder, each counted once."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return sum({file.lstat().st_ino: file.lstat().st_size for file in files}.values())


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=DEFINITIONS)
    parser.add_argument("--base", choices=("registry", "mmdebstrap"), help="default: mmdebstrap for chroot")
    parser.add_argument("--engine", choices=("apptainer", "chroot"), help="default: apptainer if it is there")
    parser.add_argument("--gpu", action="store_true", help="with CUDA's libraries")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="where it is built")
    given = parser.parse_args()
    engine = given.engine or ("apptainer" if shutil.which("apptainer") else "chroot")
    base = given.base or ("mmdebstrap" if engine == "chroot" else "registry")
    if (engine, base) == ("chroot", "registry"):
        parser.error("the engine chroot has no registry. Use --base mmdebstrap")
    if os.geteuid() == 0:
        parser.error("an image is built by an ordinary user. Expected one, got root. Run: su USER -c '…'")
    build(given.folder.absolute(), given.target, engine, base, gpu=given.gpu)
    return 0


def build(folder: Path, target: str, engine: str, base: str, *, gpu: bool) -> None:
    """Build an image, try it, and say what it came to."""
    folder.mkdir(parents=True, exist_ok=True)
    context = _timed("wheels", lambda: make_context(folder, target, gpu=gpu))
    archive = _timed("base", lambda: make_base(folder)) if base == "mmdebstrap" else None
    if engine == "chroot":
        image = _timed("image", lambda: build_chroot(folder, target, archive, context))
        _timed("test", lambda: run_chroot(image, "sh", "/opt/experiments_manager/share/test.sh"))
        _timed("help", lambda: run_chroot(image, "sh", "/opt/experiments_manager/share/run.sh", "--help"))
    else:
        image = _timed("image", lambda: build_apptainer(folder, target, archive, context))
        confined = ["--containall", "--no-home", "--net", "--network", "none"]
        _timed("test", lambda: subprocess.run(["apptainer", "test", *confined, str(image)], check=True))
        _timed("help", lambda: subprocess.run(["apptainer", "run", *confined, str(image), "--help"], check=True))
    print(f"{image}: {size_of(image) / 1e6:.0f} MB")  # noqa: T201


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
