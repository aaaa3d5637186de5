"""What the attacks share."""

import ctypes
import os
import socket
import struct

TIMEOUT = float(os.environ.get("ATTACK_TIMEOUT", "1"))
LIBC = ctypes.CDLL(None, use_errno=True)


class Missing(Exception):
    """This machine lacks what the attack needs."""


class Said:
    def __init__(self, kind, detail="", control=False):
        self.kind, self.detail, self.control = kind, detail, control


def check(result):
    """The result of a C call, or its errno as an OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def heard(s):
    """Whether the canary at the other end answers; what was sent is on its way already."""
    s.settimeout(TIMEOUT)
    try:
        data = s.recv(200)
    except OSError as error:
        return Said("sent", f"then {error}")
    return "reached" if data.startswith(b"CANARY") else Said("sent", f"got {data[:80]!r}")


def inet(host, port, kind=socket.AF_INET):
    """A struct sockaddr_in or sockaddr_in6, with the family that it is to claim."""
    if ":" in host:
        raw = struct.pack("!HI", int(port), 0) + socket.inet_pton(socket.AF_INET6, host) + b"\0" * 4
    else:
        raw = struct.pack("!H", int(port)) + socket.inet_aton(host) + b"\0" * 8
    return struct.pack("=H", kind) + raw
