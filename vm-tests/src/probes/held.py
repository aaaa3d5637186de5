"""What a unit that egret holds can do: one word per thing that works.

Run once by a unit without the drop-in, as the control, and once by the same unit with it.
"""
import ctypes
import os
import socket

works = []


def can(name, what):
    try:
        if what() is not False:
            works.append(name)
    except (OSError, PermissionError):
        pass


def write(path, text=None):
    """Opens for writing; writes back what is there, or creates and removes."""
    if text is None:
        os.close(os.open(path, os.O_WRONLY))
    else:
        with open(path, "x") as file:
            file.write(text)
        os.unlink(path)


def bpf_map():
    attributes = bytes([2, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0]) + bytes(100)
    fd = ctypes.CDLL(None).syscall(321, 0, attributes, len(attributes))
    return fd >= 0 and os.close(fd) is None


def io_uring():
    fd = ctypes.CDLL(None).syscall(425, 1, bytes(120))
    return fd >= 0 and os.close(fd) is None


can("tcp", lambda: socket.socket().close())
can("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close())
can("vsock", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close())
can("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
can("bpf", bpf_map)
can("io_uring", io_uring)
can("pins", lambda: bool(os.listdir("/run/egret/bpf")))
can("bus", lambda: socket.socket(socket.AF_UNIX).connect("/run/dbus/system_bus_socket"))
can("manager", lambda: socket.socket(socket.AF_UNIX).connect("/run/systemd/private"))
can("cgroups", lambda: write("/sys/fs/cgroup/cgroup.procs"))
can("sysctl", lambda: write("/proc/sys/kernel/core_pattern"))
can("etc", lambda: write("/etc/held-probe", "x"))
can("usr", lambda: write("/usr/held-probe", "x"))
can("tmp", lambda: write("/tmp/held-probe", "x"))
can("disk", lambda: write("/dev/nvme0n1"))
can("null", lambda: write("/dev/null"))
can("admin", lambda: os.mkdir("/tmp/held-mount") or ctypes.CDLL(None).mount(
    b"none", b"/tmp/held-mount", b"tmpfs", 0, None) == 0)
bundle = open("/etc/ssl/certs/ca-certificates.crt").read()
can("bundle", lambda: "held-marker" in bundle)
can("variable", lambda: os.environ.get("SSL_CERT_FILE") == "/run/egret/trust/bundle.pem")
can("placeholder", lambda: os.environ.get("HELD_TOKEN") == "held-placeholder")
print("works:", " ".join(works))
