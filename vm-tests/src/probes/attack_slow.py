"""Peers that stop in the middle: each must be given up, and others served meanwhile. And peers that
take memory."""

import select
import socket
import struct
import time

from attack_names import resolver
from attack_parts import TIMEOUT, Said
from attack_tls import PATIENCE, address, fetch, handshake, hello, served

# What SECURITY.md promises for the slowest of these, and some more for a busy machine.
GIVEN_UP = 60 + 30


def opened(name, port, data):
    s = socket.create_connection((name, port), PATIENCE)
    s.sendall(data)
    return s


def tls(name, data):
    s = handshake("-", name, name)
    s.sendall(data)
    return s


def idle():
    """A connection that has served a request and is kept."""
    s = handshake("-", "api.test", "api.test")
    s.sendall(b"GET /idle HTTP/1.1\r\nHost: api.test\r\n\r\n")
    s.recv(65536)
    return s


def half_dns():
    s = socket.create_connection((resolver("system"), 53), PATIENCE)
    s.sendall(struct.pack("!H", 500) + b"half")
    return s


STOPPED = {
    "hello": lambda: opened("api.test", 443, hello("api.test")[:30]),
    "nothing": lambda: opened("api.test", 443, b""),
    "head": lambda: tls("api.test", b"GET /slow-head HTTP/1.1\r\nHost: api"),
    "plain head": lambda: opened("plain.test", 80, b"GET /slow-head HTTP/1.1\r\nHost: pl"),
    "body": lambda: tls(
        "other.test", b"POST /slow-body HTTP/1.1\r\nHost: other.test\r\nContent-Length: 9\r\n\r\nx"
    ),
    "idle": idle,
    "dns": half_dns,
}


def slow_peers():
    """`done` is harm: one of them is still there after its time."""
    began = time.monotonic()
    waiting = {make(): name for name, make in STOPPED.items()}
    took, refused = {}, []
    while waiting and time.monotonic() - began < GIVEN_UP:
        ready, _, _ = select.select(list(waiting), [], [], 1)
        for s in ready:
            s.settimeout(0.1)
            try:
                if s.recv(65536):
                    continue  # a refusal before the end
            except TimeoutError:
                continue  # TLS has something to say to itself
            except OSError:
                pass
            took[waiting.pop(s)] = time.monotonic() - began
        if time.monotonic() - began < 20 and fetch("-", "api.test", "GET", "/meanwhile")[0] != 200:
            refused.append(time.monotonic() - began)
        time.sleep(0.2)
    # What ended at once was not given up but never accepted.
    patient = all(seconds > 1 for seconds in took.values())
    said = served("-")
    times = " ".join(f"{name}: {seconds:.0f} s" for name, seconds in sorted(took.items()))
    stuck = f"still there: {sorted(waiting.values())}; " if waiting else ""
    harm = bool(waiting or refused)
    detail = f"{stuck}{len(refused)} requests not served meanwhile; {times}"
    return Said("done" if harm else "refused", detail, patient and said.control)


def memory_hog(count, size, ready, go):
    """Connections that each leave a large part of a head with whoever reads it."""
    kept, sent = [], 0
    head = b"GET /hog HTTP/1.1\r\nHost: plain.test\r\n"
    fill = b"".join(b"X-%d: %s\r\n" % (i, b"x" * 900) for i in range(int(size) // 910))
    for _ in range(int(count)):
        try:
            s = socket.create_connection(address("-", "plain.test", 80), TIMEOUT)
            s.settimeout(TIMEOUT)
            s.sendall(head + fill)
            sent += 1
            kept.append(s)
        except OSError:
            break
    with open(ready, "w") as f:
        f.write("1")
    end = time.monotonic() + TIMEOUT * 100
    while not exists(go) and time.monotonic() < end:
        time.sleep(0.02)
    for s in kept:
        s.close()
    said = served("-")
    said.detail += f", after {sent} heads of {len(head + fill)} bytes"
    said.control = said.control and sent > int(count) // 2
    return said


def exists(path):
    try:
        with open(path):
            return True
    except OSError:
        return False


def name_flood(dial, first, count):
    """The answer to a ClientHello for each of many names, all of them allowed: a certificate has
    been made then."""
    done, labels = 0, f"{'n' * 60}.{'n' * 60}.{'n' * 60}"
    for number in range(int(first), int(first) + int(count)):
        name = f"{labels}.n{number}.wild.test"
        try:
            s = opened(*address(dial, name), hello(name))
            s.settimeout(PATIENCE)
            done += s.recv(5)[:1] == b"\x16"
            s.close()
        except OSError:
            pass
    return done


def flood(dial, count, stages, prefix):
    """Floods of names, with a pause after each in which somebody measures: the file `prefix` and a
    number says that it is over, and the harness's `prefix` number `.go` that it was measured."""
    done = []
    for stage in range(int(stages)):
        done.append(name_flood(dial, stage * int(count), count))
        with open(f"{prefix}{stage}", "w") as f:
            f.write("1")
        while not exists(f"{prefix}{stage}.go"):
            time.sleep(0.02)
    said = served("-")
    said.detail += f", after {done} names"
    said.control = said.control and all(n == int(count) for n in done)
    return said
