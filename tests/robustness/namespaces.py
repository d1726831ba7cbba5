"""A child's own file systems and network, which the rest of the machine never sees."""

import ctypes
import os
from pathlib import Path

from tests.robustness.rows import NotPermitted

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18


def new_namespaces(flags: int) -> None:
    """Puts this process into namespaces of its own, as root or as a user that may be root in one;
    else NotPermitted.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(flags) == 0:
        return
    if libc.unshare(flags | CLONE_NEWUSER) != 0:
        raise NotPermitted(f"no namespaces for this user ({os.strerror(ctypes.get_errno())})")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def mount_memory(place: Path, size: int) -> None:
    """A file system in memory at `place`, seen by this process and its children alone and gone with
    them.

    size: bytes. NotPermitted where neither root nor a user may mount.
    """
    new_namespaces(CLONE_NEWNS)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    if libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", 0, f"size={size}".encode()) != 0:
        raise NotPermitted(f"no mounts for this user ({os.strerror(ctypes.get_errno())})")


def without_network() -> None:
    """From now on this process and its children have no network but an unconnected loopback."""
    new_namespaces(CLONE_NEWNET)
