"""What can build and run an image: Apptainer, Podman, and `chroot` where there is neither.

Each takes the folder to build in, the target, the archive of the base (`None`: that of the registry), the context that
`build.make_context` has put together, and what `build.names_of` tells.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DEFINITIONS = {
    "train": "tf2_addons.def",
    "serve": "tf_server_embedded.def",
    "lite": "tf_server_lite.def",
    "client": "client.def",
}
LISTS = {
    "train": "requirements.txt",
    "serve": "requirements-serving.txt",
    "lite": "requirements-lite.txt",
    "client": "requirements-client.txt",
}
SHARE = "/opt/experiments_manager/share"
NAMESPACE = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "--pid", "--fork", "--kill-child"]
_DEVICES = "null zero full random urandom"
_MOUNTS = f"""
PATH="$PATH:/usr/sbin:/sbin"  # where `chroot` is, which an ordinary user's path leaves out
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
mount --bind "$root" "$root"
{_MOUNTS}
ip link set lo up
mount -o remount,bind,ro "$root"
exec chroot --userspec=12345:12345 "$root" /usr/bin/env -i PATH=/usr/local/bin:/usr/bin:/bin LC_ALL=C.UTF-8 "$@"
"""


def chroot_command(image: str, *command: str) -> list[str]:
    """Return what runs a command in the folder of an image, confined as said at `Chroot.run`."""
    return [*NAMESPACE, "--net", "sh", "-c", _RUN, "run", image, *command]


def apptainer_command(image: str, *command: str) -> list[str]:
    """Return what runs a command in a file of Apptainer, confined in the same way."""
    return [
        "apptainer",
        "exec",
        "--containall",
        "--no-home",
        "--pwd",
        "/",
        "--net",
        "--network",
        "none",
        image,
        *command,
    ]


class Chroot:
    """A folder with the root file system, and namespaces; nothing but `unshare` and `mount` is needed."""

    def build(self, folder: Path, target: str, base: Path | None, context: Path, names: Mapping[str, str]) -> str:
        """Build an image, and return its name."""
        root = folder / target
        command = ["sh", "-c", _BUILD, "build", str(root), str(base), str(context), names["list"]]
        subprocess.run([*NAMESPACE, *command], check=True)
        return str(root)

    def run(self, image: str, *command: str) -> None:
        """Run a command as an ordinary user, with a read-only root, no network and no home folder."""
        subprocess.run(chroot_command(image, *command), check=True)

    def size(self, image: str) -> int:
        """Return the bytes of an image, unpacked."""
        return size_of(Path(image))


class Apptainer:
    """One file, with the name of its recipe."""

    def build(self, folder: Path, target: str, base: Path | None, context: Path, names: Mapping[str, str]) -> str:
        """Build an image, and return its name."""
        place = None
        if base is not None:
            place = folder / "base"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            subprocess.run(["tar", "-C", str(place), "--exclude=./dev/*", "-xf", str(base)], check=True)
        recipe = folder / f"{target}.def"
        recipe.write_text(definition(target, context, place, names), encoding="utf-8")
        image = folder / Path(DEFINITIONS[target]).with_suffix(".sif")
        subprocess.run(["apptainer", "build", "--force", "--notest", str(image), str(recipe)], check=True)
        return str(image)

    def run(self, image: str, *command: str) -> None:
        """Run a command as an ordinary user, with a read-only root, no network and no home folder."""
        subprocess.run(apptainer_command(image, *command), check=True)

    def size(self, image: str) -> int:
        """Return the bytes of an image, unpacked."""
        # What is mounted at run time lies elsewhere.
        command = apptainer_command(image, "du", "-sbc", "/etc", "/opt", "/usr", "/var")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return int(done.stdout.splitlines()[-1].split()[0])


class Podman:
    """An OCI image in Podman's storage, from a target of the Dockerfile."""

    def build(self, folder: Path, target: str, base: Path | None, context: Path, names: Mapping[str, str]) -> str:
        """Build an image, and return its name."""
        command = ["podman", "build", "--file", str(HERE / "Dockerfile"), "--target", target, "--layers=false"]
        command += ["--format", "docker", "--tag", f"experiments_manager:{target}"]
        command += ["--volume", f"{context / 'wheels'}:/opt/build/wheels:ro"]
        if base is not None:
            subprocess.run(["podman", "import", "--quiet", str(base), "localhost/experiments_manager_base"], check=True)
            command += ["--pull=never", "--build-arg", "BASE=localhost/experiments_manager_base"]
        for name in ("version", "commit", "list"):
            command += ["--build-arg", f"{name.upper()}={names[name]}"]
        if "BUILDAH_ISOLATION" not in os.environ:
            command += ["--isolation", "chroot"]  # the one that works inside another container, too
        subprocess.run([*command, str(ROOT)], check=True)
        return f"localhost/experiments_manager:{target}"

    def run(self, image: str, *command: str) -> None:
        """Run a command as an ordinary user, with a read-only root, no network and no home folder."""
        confined = ["--read-only", "--network", "none", "--user", "12345:12345", "--tmpfs", "/tmp:rw,mode=1777"]  # noqa: S108
        program = ["--entrypoint", "/usr/bin/env", image, "-u", "HOME", *command]
        subprocess.run(["podman", "run", "--rm", *confined, *program], check=True)

    def size(self, image: str) -> int:
        """Return the bytes of an image, unpacked."""
        # What Podman itself says of a size counts some images twice.
        command = ["podman", "run", "--rm", "--network", "none", "--user", "0:0", "--entrypoint", "/usr/bin/du", image]
        said = subprocess.run([*command, "-xsb", "/"], check=True, capture_output=True, text=True).stdout
        return int(said.split()[0])


ENGINES = {"apptainer": Apptainer(), "podman": Podman(), "chroot": Chroot()}


def definition(target: str, context: Path, base: Path | None, names: Mapping[str, str]) -> str:
    """Return the recipe for Apptainer, with labels, and another base where no registry is used."""
    text = (HERE / DEFINITIONS[target]).read_text(encoding="utf-8")
    text = text.replace("@VERSION@", names["version"]).replace("@COMMIT@", names["commit"])
    text = text.replace("    build/context /opt/build", f"    {context} /opt/build")
    text = text.replace(f"post.sh {LISTS[target]}", f"post.sh {names['list']}")
    if base is None:
        return text
    lines = (
        f"Bootstrap: localimage\nFrom: {base}" if line.startswith("Bootstrap:") else line for line in text.split("\n")
    )
    return "\n".join(line for line in lines if not line.startswith("From: debian"))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder, each counted once."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return sum({file.lstat().st_ino: file.lstat().st_size for file in files}.values())
