"""A process apart: no network, no other processes, and of all files the interpreter's own, which it cannot write.

Linux namespaces do it, by plain system calls; only what Python itself has is imported here.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

NEW_FILES, NEW_NAMES, NEW_IPC = 0x20000, 0x4000000, 0x8000000
NEW_USER, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
NO_SETUID, NO_DEVICES = 2, 4
BIND, ALL_BELOW, PRIVATE = 4096, 16384, 1 << 18
READ_ONLY = 1
SET_MOUNT, HERE, RECURSIVE = 442, -100, 0x8000
"""The system call mount_setattr and two of its arguments."""
DEVICES = ("null", "zero", "urandom")
NOBODY = 65534
WORK, CODE = "work", "code.py"
"""Below the new root: the folder that is written to, and the program."""


class _Attributes(ctypes.Structure):
    """What mount_setattr changes."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "spread", "user")]


def isolate(root: str, paths: list[str], *, nbytes: int) -> None:
    """Parts this process from the rest, and prepares a root that its children enter; they are the new processes.

    Args:
        root: an empty folder.
        paths: what of the files is there too, to be read.
        nbytes: all files that are written may have together.

    Raises:
        OSError: this machine, or a container around it, does not allow it.
    """
    uid, gid = os.geteuid(), os.getegid()
    apart = NEW_FILES | NEW_NAMES | NEW_IPC | NEW_PROCESSES | NEW_NETWORK
    # Root may do all that follows by itself; others may where they are root of users of their own.
    _check("unshare", _libc().unshare(apart if uid == 0 else apart | NEW_USER))
    if uid:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
    _mount("none", "/", ALL_BELOW | PRIVATE)
    options = f"size={nbytes},nr_inodes=4096,mode=755"
    _mount("tmpfs", root, NO_SETUID | NO_DEVICES, kind="tmpfs", options=options)
    for path in paths:
        _show(root, path)
    os.mkdir(f"{root}/dev")
    for device in DEVICES:
        Path(f"{root}/dev/{device}").touch()
        _mount(f"/dev/{device}", f"{root}/dev/{device}", BIND)
    os.mkdir(f"{root}/{WORK}")
    os.chmod(f"{root}/{WORK}", 0o777)


def enter(root: str) -> None:
    """Makes the prepared root that of this process, and gives up what root may do."""
    os.chroot(root)
    os.chdir(f"/{WORK}")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _show(root: str, path: str) -> None:
    """Has a folder, a file or a link stand in the new root, to be read."""
    new = Path(root + path)
    if new.exists() or not Path(path).exists():
        return
    new.parent.mkdir(parents=True, exist_ok=True)
    if Path(path).is_symlink():
        new.symlink_to(os.readlink(path))
        return
    if Path(path).is_dir():
        new.mkdir()
    else:
        new.touch()
    _mount(path, str(new), BIND | ALL_BELOW)
    attributes = _Attributes(READ_ONLY | NO_SETUID | NO_DEVICES)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    done = _libc().syscall(
        ctypes.c_long(SET_MOUNT),
        ctypes.c_int(HERE),
        ctypes.c_char_p(str(new).encode()),
        ctypes.c_uint(RECURSIVE),
        ctypes.byref(attributes),
        size,
    )
    _check(f"mount_setattr {path}", done)


def _mount(
    source: str, target: str, flags: int, *, kind: str = "", options: str = ""
) -> None:
    done = _libc().mount(
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(f"mount {target}", done)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(what: str, done: int) -> None:
    if done:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def limit_processes(most: int) -> None:
    """So many processes and threads of this user among the new ones."""
    import resource

    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
