"""A full table of flows: what waits there is a connection that has begun and never leaves.

A source address that this machine does not have, which Linux lets everybody bind, makes `connect`
fail after the hook has taken a place for it; the place is given back when the socket is closed.
"""

import errno
import os
import resource
import socket
import time

from attack_parts import TIMEOUT, Said
from attack_tls import fetch

IP_FREEBIND, IP_BIND_ADDRESS_NO_PORT = 15, 24
TARGET = ("203.0.113.9", 80)
# More than any table holds.
ENOUGH = 400_000


def take_places(limit):
    """(sockets, whether the table is full)"""
    kept = []
    while len(kept) < limit:
        try:
            s = socket.socket()
        except OSError:
            return kept, False
        s.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        s.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        s.bind(("198.51.100.251", 0))
        try:
            s.connect(TARGET)
        except OSError as error:
            if error.errno == errno.EPERM:
                return kept, True
        kept.append(s)
    return kept, False


def child(out, wait, limit):
    kept, full = take_places(limit)
    os.write(out, f"{len(kept)} {int(full)}\n".encode())
    os.read(wait, 1)
    os._exit(0)


def fill():
    """(places taken, whether it is full, what ends it)"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    each = min(hard - 64, 20_000)
    wait, end = os.pipe()
    taken, full = 0, False
    while not full and taken < ENOUGH:
        answer, out = os.pipe()
        if os.fork() == 0:
            os.close(end)
            child(out, wait, each)
        os.close(out)
        line = os.read(answer, 100).split()
        os.close(answer)
        if len(line) != 2 or not int(line[0]) + int(line[1]):
            break
        taken, full = taken + int(line[0]), line[1] == b"1"
    return taken, full, (wait, end)


def release(pipe):
    for fd in pipe:
        os.close(fd)
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass


def served(dial):
    try:
        return fetch(dial, "api.test", "GET", "/flows")[0] == 200
    except OSError:
        return False


def full_table(dial):
    """Nothing gets through a full table, and afterwards it serves again."""
    before = served(dial)
    taken, full, pipe = fill()
    meanwhile = []
    for _ in range(3):
        try:
            socket.create_connection(TARGET, TIMEOUT)
            meanwhile.append("connected")
        except OSError as error:
            meanwhile.append(errno.errorcode.get(error.errno, str(error)))
    release(pipe)
    end, after = time.monotonic() + TIMEOUT * 20, False
    while not after and time.monotonic() < end:
        after = served(dial)
    detail = f"{taken} places, full: {full}, then {meanwhile}; served before {before}, after {after}"
    leaked = full and "connected" in meanwhile
    return Said("done" if leaked else "refused", detail, before and full and after)


def hold_table(ready, go):
    """A full table, until told otherwise."""
    taken, full, pipe = fill()
    with open(ready, "w") as f:
        f.write("1")
    while not os.path.exists(go):
        time.sleep(0.02)
    release(pipe)
    return Said("refused", f"{taken} places", full)
