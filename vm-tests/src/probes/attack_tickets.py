"""Attacks by what a TLS session leaves behind: tickets, and early data sent with one."""

import base64
import os
import subprocess
import tempfile

from attack_parts import TIMEOUT, Missing, Said
from attack_tls import address

HEAD = "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"


def client(dial, name, words, request=b""):
    """What openssl says of one connection."""
    host, port = address(dial, name)
    words = ["openssl", "s_client", "-connect", f"{host}:{port}", "-servername", name] + words
    try:
        done = subprocess.run(
            words, input=request, capture_output=True, timeout=TIMEOUT * 15
        )
    except FileNotFoundError:
        raise Missing("no openssl")
    except subprocess.TimeoutExpired as late:
        return ((late.stdout or b"") + (late.stderr or b"")).decode(errors="replace")
    return (done.stdout + done.stderr).decode(errors="replace")


def take_ticket(dial, name, file):
    """A session in a file, for whoever reads it."""
    request = HEAD.format(path="/ticket", name=name).encode()
    client(dial, name, ["-tls1_3", "-ign_eof", "-sess_out", file], request)
    if not os.path.exists(file):
        return False
    os.chmod(file, 0o644)
    return True


def reused(dial, name, file):
    request = HEAD.format(path="/ticket", name=name).encode()
    said = client(dial, name, ["-tls1_3", "-ign_eof", "-sess_in", file], request)
    return "Reused, TLSv1.3" in said, said


def own_ticket(dial, name, file):
    """`done`: a session is taken up again by whom it was made for."""
    if not take_ticket(dial, name, file):
        return Said("refused", "no ticket was given")
    again, _ = reused(dial, name, file)
    return Said("done" if again else "refused", f"reused: {again}", again)


def anothers_ticket(dial, name, file):
    """Take up the session of somebody else. Its control: the request is served all the same."""
    again, said = reused(dial, name, file)
    return Said("done" if again else "refused", f"reused: {again}", "HTTP/1.1 200" in said)


def tagged(tag, content):
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def parts(der):
    """The elements of a sequence, each with its tag."""
    at, found = 0, []
    while at < len(der):
        size, head = der[at + 1], 2
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(der[at + 2 : at + head], "big")
        found.append((der[at], der[at + head : at + head + size]))
        at += head + size
    return found


def allow_early_data(file):
    """Let a session claim that its server takes early data (OpenSSL's field 15), whatever the
    server said."""
    with open(file) as f:
        body = "".join(l.strip() for l in f if "-----" not in l)
    ((_, inner),) = parts(base64.b64decode(body))
    fields = [p for p in parts(inner) if p[0] != 0xAF]
    fields.append((0xAF, b"\x02\x02\x40\x00"))
    # Untagged fields first, in their order; then by number.
    fields.sort(key=lambda p: p[0] if p[0] >= 0xA0 else 0)
    inner = b"".join(tagged(tag, content) for tag, content in fields)
    body = base64.encodebytes(tagged(0x30, inner)).decode()
    with open(file, "w") as f:
        f.write("-----BEGIN SSL SESSION PARAMETERS-----\n" + body)
        f.write("-----END SSL SESSION PARAMETERS-----\n")


def early_data(dial, name, path):
    """A request inside early data."""
    with tempfile.TemporaryDirectory() as folder:
        file, early = os.path.join(folder, "session"), os.path.join(folder, "early")
        if not take_ticket(dial, name, file):
            return Said("broken", "no ticket was given")
        allow_early_data(file)
        with open(early, "w") as f:
            f.write(HEAD.format(path=path, name=name))
        words = ["-tls1_3", "-sess_in", file, "-early_data", early]
        said = client(dial, name, words)
    sent = next((l for l in said.splitlines() if l.startswith("Early data was")), "not sent")
    return Said("done" if sent == "Early data was accepted" else "refused", sent)
