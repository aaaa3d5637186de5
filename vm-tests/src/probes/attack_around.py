"""What surrounds every run: a socket that was opened before, and, where they are asked for, a group
to enter, surroundings like a unit's, a working folder and a user.

`attack_around.py --before HOST PORT [--cgroup DIR] [--unit FOLDER] [--chdir DIR] [--uid N] -- COMMAND…`

An attached agent is a process of the machine, so what its unit lets it do is part of the attack.
`--unit` is a unit with the capabilities of a default container and with what keeps root's files
from an agent of uid 0:

    CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW
        CAP_SETGID CAP_SETUID CAP_SETFCAP CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL
        CAP_AUDIT_WRITE
    ProtectSystem=strict
    ReadWritePaths=FOLDER
    ProtectKernelTunables=yes
    ProtectControlGroups=yes     (but for the group itself, as with Delegate=yes)

What it deliberately lacks, so that the table shows what is reachable without it: NoNewPrivileges=,
RestrictAddressFamilies=, PrivateNetwork=, PrivateTmp=, and anything that hides Unix sockets.
"""

import argparse
import ctypes
import os
import socket

LIBC = ctypes.CDLL(None, use_errno=True)
# Numbers of linux/capability.h.
CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
NEWNS, BIND, REC, PRIVATE = 0x20000, 0x1000, 0x4000, 1 << 18
RECURSIVE, READ_ONLY, HERE = 0x8000, 1, -100


def check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source, target, flags):
    check(LIBC.mount(source.encode(), target.encode(), None, flags, None), f"mount {target}")


def set_read_only(path, yes, recursive=False):
    """mount_setattr(2), which changes one flag and leaves the others."""
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY if yes else 0, 0 if yes else READ_ONLY, 0, 0)
    flags = RECURSIVE if recursive else 0
    done = LIBC.syscall(442, HERE, path.encode(), flags, ctypes.byref(attributes), 32)
    check(done, f"mount_setattr {path}")


def like_a_unit(folder, group):
    check(LIBC.unshare(NEWNS), "unshare")
    mount("none", "/", REC | PRIVATE)
    writable = [folder] + ([group] if group else [])
    for path in writable + ["/proc/sys"]:
        mount(path, path, BIND)
    set_read_only("/", True, recursive=True)
    for path in writable + ["/proc", "/dev"]:
        set_read_only(path, False, recursive=path == "/dev")
    for number in range(64):
        if number not in CAPABILITIES:
            LIBC.prctl(24, number, 0, 0, 0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", nargs=2, required=True)
    parser.add_argument("--cgroup")
    parser.add_argument("--unit")
    parser.add_argument("--chdir", default="/")
    parser.add_argument("--uid", type=int)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    host, port = args.before
    before = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    before.connect((host, int(port)))
    os.dup2(before.fileno(), 9, inheritable=True)
    if args.cgroup:
        with open(os.path.join(args.cgroup, "cgroup.procs"), "w") as f:
            f.write("0")
    if args.unit:
        like_a_unit(args.unit.rstrip("/"), args.cgroup)
    os.chdir(args.chdir)
    if args.uid:
        os.setgroups([])
        os.setresgid(args.uid, args.uid, args.uid)
        os.setresuid(args.uid, args.uid, args.uid)
    os.execvp(args.command[0], args.command)


main()
