"""Attacks on what stands around the sockets: cgroups, namespaces, processes, files."""

import ctypes
import fcntl
import os
import socket
import struct
import time

from attack_hosts import started
from attack_parts import LIBC, TIMEOUT, Said, check
from attack_sockets import tcp, used_fd
from attack_tls import fetch

MARK = "egret-attack-victim"
NEWUSER, NEWNET, NEWNS, NEWCGROUP = 0x10000000, 0x40000000, 0x00020000, 0x02000000


def cgroups():
    """Where cgroup v2 is mounted."""
    with open("/proc/self/mountinfo") as f:
        for line in f:
            head, tail = line.split(" - ")
            if tail.startswith("cgroup2 "):
                yield head.split(" ")[4]


def other_cgroup(host, port):
    """Move to the root cgroup, or to any other, and dial from there."""
    moved = []
    for root in cgroups():
        # Another agent's group would be no way out.
        others = [e.path for e in os.scandir(root) if e.is_dir() and "egret" not in e.name]
        for path in [root] + others:
            try:
                with open(os.path.join(path, "cgroup.procs"), "w") as f:
                    f.write(str(os.getpid()))
                moved.append(path)
            except OSError:
                pass
    said = tcp(host, port)
    return said if not isinstance(said, Said) else Said(said.kind, f"moved to {moved}")


def nested_cgroup(host, port):
    """Make a group below one's own, enter it, and dial from there."""
    with open("/proc/self/cgroup") as f:
        own = next(l.strip()[3:] for l in f if l.startswith("0::"))
    made, why = None, ""
    for root in cgroups():
        path = os.path.join(root, own.lstrip("/"), f"attack-{os.getpid()}")
        try:
            os.mkdir(path)
            made = path
            with open(os.path.join(path, "cgroup.procs"), "w") as f:
                f.write(str(os.getpid()))
            break
        except OSError as error:
            why = str(error)
    try:
        said = tcp(host, port)
        kind = said.kind if isinstance(said, Said) else said
        return Said(kind, f"from {made or why}")
    finally:
        if made:
            with open(os.path.join(os.path.dirname(made), "cgroup.procs"), "w") as f:
                f.write(str(os.getpid()))
            os.rmdir(made)


def unshared(host, port):
    """With a user, mount and cgroup namespace of one's own."""
    check(LIBC.unshare(NEWUSER | NEWNS | NEWCGROUP))
    return tcp(host, port)


def new_network(host, port, dial):
    """A network namespace of one's own has no interceptor yet: nothing may get out. Within a second
    it must have one (its control), and be as closed and as open as the other; the rest of the time
    is for the request."""
    check(LIBC.unshare(NEWUSER | NEWNET))
    loopback_up()
    began, wins = time.monotonic(), []
    while True:
        try:
            said = tcp(host, port)
            if said == "reached":
                wins.append("the canary")
        except OSError:
            pass
        try:
            served = fetch(dial, "api.test", "GET", "/new-network")[0] == 200
        except OSError:
            served = False
        took = time.monotonic() - began
        if served or took > TIMEOUT * 5:
            break
        time.sleep(0.05)
    return Said("done" if wins else "refused", f"{wins} served: {served} after {took:.1f} s", served)


def loopback_up():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(s, 0x8914, struct.pack("16sH14s", b"lo", 0x1 | 0x40, b""))


def entered(pid, host, port):
    """In the network namespace of a process of the host."""
    fd = os.open(f"/proc/{victim(pid)}/ns/net", os.O_RDONLY)
    check(LIBC.setns(fd, NEWNET))
    return tcp(host, port)


def by_sudo(host, port):
    return started(["sudo", "-n"], host, port)


def by_setuid(program, host, port):
    """A program that runs what it is given as its owner, root."""
    return started([program], host, port)


def pidfd(pid, number):
    """Take a socket out of a process of the host."""
    fd = check(LIBC.syscall(434, int(pid), 0))
    return used_fd(check(LIBC.syscall(438, fd, int(number), 0)))


def victim(pid):
    """The process of the host that carries the mark; inside, its number may be another's."""
    try:
        with open(f"/proc/{pid}/cmdline") as f:
            if MARK in f.read():
                return int(pid)
    except OSError:
        pass
    raise ProcessLookupError(3, f"no victim at {pid}")


def kills(pid):
    os.kill(victim(pid), 0)
    return "done"


def traces(pid):
    check(LIBC.ptrace(16, victim(pid), None, None))
    os.waitpid(int(pid), 0)
    LIBC.ptrace(17, victim(pid), None, None)
    return "done"


def memory(pid):
    with open(f"/proc/{victim(pid)}/mem", "rb"):
        return "done"


def memory_as_its_user(pid, place):
    """The memory of a process of another user, after becoming that user; a control stays root."""
    with open(f"/proc/{pid}/status") as f:
        words = [line.split() for line in f]
    uid, gid = (next(int(w[1]) for w in words if w and w[0] == n) for n in ("Uid:", "Gid:"))
    if place == "inside" and os.getuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    with open(f"/proc/{pid}/mem", "rb"):
        return "done"


def bpf(command):
    """A map (0), or the program (5) that returns at once, for cgroup_skb."""
    if command == "0":
        attributes = struct.pack("=IIII", 2, 4, 4, 1) + b"\0" * 112
    else:
        code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0))
        licence = ctypes.create_string_buffer(b"GPL")
        attributes = struct.pack(
            "=IIQQ", 8, 2, ctypes.addressof(code), ctypes.addressof(licence)
        ) + b"\0" * 96
    check(LIBC.syscall(321, int(command), attributes, len(attributes)))
    return "done"


def nft():
    """A table of the firewall: batch begin, new table, batch end."""
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    s.bind((0, 0))
    s.settimeout(2)
    name = b"attack\0\0"

    def message(kind, flags, number, family, body=b""):
        head = struct.pack("=IHHII", 20 + len(body), kind, flags, number, 0)
        return head + struct.pack("!BBH", family, 0, 10 if kind in (16, 17) else 0) + body

    def batch(kind):
        body = struct.pack("=HH", 4 + 7, 1) + name
        return message(16, 1, 1, 0) + message(kind, 5, 2, 2, body) + message(17, 1, 3, 0)

    s.send(batch(0x0A00))
    number = struct.unpack_from("=i", s.recv(4096), 16)[0]
    if number:
        raise OSError(-number, os.strerror(-number))
    s.send(batch(0x0A02))
    return "done"


def writes(path):
    """Open for writing, and write nothing."""
    with open(path, "ab"):
        return "done"


def creates(path):
    with open(path, "x"):
        pass
    os.unlink(path)
    return "done"


def makes_folder(path):
    """Where the kernel's objects are pinned: who can make a folder there can remove a pin too."""
    name = os.path.join(path, f"attack-{os.getpid()}")
    os.mkdir(name)
    os.rmdir(name)
    return "done"


def lists(path):
    os.listdir(path)
    return "done"
