"""Where a mode runs: a folder on the disk to measure, or a loop-mounted xfs image beside it; and the page cache."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


def run_quietly(command):
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)


def file_system(directory):
    """Type of the file system that holds `directory`: the mount with the longest matching path."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, found = line.split()[:3]
        inside = str(directory.resolve()).startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, found
    return kind


@dataclass
class Place:
    """A folder with the export to read, and the one that a run writes or changes."""

    root: Path
    label: str  # of the file system
    reflink: bool  # whether copies share extents
    missing: str  # why nothing can be measured here, or empty
    export: Path

    @property
    def output(self):
        return self.root / "output"

    def clear_output(self):
        if not self.missing:
            shutil.rmtree(self.output, ignore_errors=True)

    def copy_export(self):
        """A fresh copy of the export as the output, to be changed in place. Free where extents are shared."""
        self.clear_output()
        run_quietly(["cp", "-r", f"--reflink={'always' if self.reflink else 'never'}", self.export, self.output])


def xfs_missing():
    """Why no xfs image can be made and mounted, or an empty string."""
    if os.geteuid() != 0:
        return "only root can mount an xfs image"
    for program in ("mkfs.xfs", "losetup", "mount"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return ""


def mount_image(image, mount, size):
    """Makes and mounts a sparse xfs image. With direct I/O, so that data are not cached again as pages of the image."""
    with open(image, "wb") as file:
        file.truncate(size)
    run_quietly(["mkfs.xfs", "-q", "-m", "reflink=1", image])
    find = ["losetup", "--find", "--show", "--direct-io=on", str(image)]
    device = subprocess.run(find, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    try:
        run_quietly(["mount", "-t", "xfs", device, mount])
    finally:
        run_quietly(["losetup", "--detach", device])  # takes effect when it is unmounted


def remove_image(image, mount):
    if mount.is_mount():
        run_quietly(["umount", mount])
    if mount.exists():
        mount.rmdir()
    image.unlink(missing_ok=True)


@contextlib.contextmanager
def xfs_place(workdir, data_bytes):
    """A Place on a loop-mounted xfs image with room for `data_bytes`, removed at the end."""
    image, mount = workdir / "xfs.img", workdir / "xfs"
    place = Place(mount, "xfs (loop)", True, xfs_missing(), mount / "export")
    if place.missing:
        yield place
        return
    remove_image(image, mount)  # what a killed run left
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # no mount outlives this process
    try:
        mount.mkdir()
        try:
            mount_image(image, mount, (int(data_bytes * 1.05) >> 30) + 2 << 30)
        except subprocess.CalledProcessError as error:
            place.missing = f"{error.cmd[0]} failed with exit status {error.returncode}"
        yield place
    finally:
        remove_image(image, mount)


class Caches:
    """Puts the page cache into a known state."""

    def __init__(self):
        self.whole_machine = os.access("/proc/sys/vm/drop_caches", os.W_OK)
        self.how = ("the whole page cache dropped (drop_caches)" if self.whole_machine
                    else "the pages of the files to read dropped (posix_fadvise)")

    def make_cold(self, directory):
        os.sync()
        if self.whole_machine:
            Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
            return
        for path in directory.iterdir():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def make_warm(self, directory):
        os.sync()
        for path in directory.iterdir():
            run_quietly(["cat", path])
