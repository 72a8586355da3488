"""File systems of their own: small, full, or read-only."""

import os
import shutil
import subprocess

import pytest


@pytest.fixture
def mounted_disk(tmp_path):
    """Mounts a file system of so many bytes and gives its folder; `None` for the folder alone."""
    folders = []

    def mount(size):
        if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("only root can mount a file system of its own")
        folder = tmp_path / f"disk_{len(folders)}"
        folder.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
        if mounted.returncode != 0:
            pytest.skip(f"cannot mount: {mounted.stderr.decode()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small_disk(mounted_disk):
    """A file system of 64 KiB."""
    return mounted_disk("64k")


@pytest.fixture
def full_disk(small_disk):
    """Call it to use up what is free on `small_disk`."""

    def fill():
        with (small_disk / "ballast").open("ab", buffering=0) as stream:
            for size in (4096, 512, 1):
                try:
                    while stream.write(b"x" * size) == size:
                        pass
                except OSError:
                    pass

    return fill


@pytest.fixture
def read_only_disk(mounted_disk):
    """Give a mounted folder and a function that makes it read-only."""
    folder = mounted_disk("1m")

    def protect():
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)

    return folder, protect
