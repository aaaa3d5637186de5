"""Attacks by TLS and by the names inside it."""

import socket
import ssl
import struct
import urllib.error
import urllib.request

from attack_parts import TIMEOUT, Said

# Requests cross an interceptor, an audit log and an upstream; more than a packet's time.
PATIENCE = TIMEOUT * 8


def address(dial, name, port=443):
    """Where to connect: `-` is by name, as an agent does it."""
    if dial == "-":
        return name, port
    host, port = dial.rsplit(":", 1)
    return host, int(port)


def context(alpn=None):
    # The client is the attacker: it believes any certificate.
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    if alpn:
        c.set_alpn_protocols([alpn])
    return c


def handshake(dial, name, sni, alpn=None):
    s = socket.create_connection(address(dial, name), PATIENCE)
    s.settimeout(PATIENCE)
    return context(alpn).wrap_socket(s, server_hostname=None if sni == "-" else sni)


def ask(s, method, path, host):
    """(status, head) of one request."""
    s.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        more = s.recv(4096)
        if not more:
            break
        data += more
    head = data.split(b"\r\n\r\n")[0].decode(errors="replace")
    words = head.split(" ")
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), head


def fetch(dial, name, method, path, sni=None, host=None):
    return ask(handshake(dial, name, sni or name), method, path, host or name)


def https(dial, name, method, path, sni=None, host=None):
    status, _ = fetch(dial, name, method, path, sni, host)
    return Said("done" if status == 200 else "refused", f"status {status}")


def plain(name, path):
    """HTTP without TLS, by name."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{name}{path}", timeout=PATIENCE) as answer:
            return Said("sent", f"status {answer.status}")
    except urllib.error.HTTPError as error:
        return Said("sent", f"status {error.code}")
    except OSError as error:
        return Said("sent", str(error))


def unknown_alpn(dial, name):
    try:
        s = handshake(dial, name, name, "attack/1")
    except ssl.SSLError as error:
        return Said("refused", str(error))
    status, _ = ask(s, "GET", "/alpn", name)
    return Said("done" if status == 200 else "refused", f"status {status}")


def early_hints(dial, name):
    """Whether an answer invites to HTTP/3."""
    status, head = fetch(dial, name, "GET", "/alt-svc")
    invited = "alt-svc" in head.lower()
    return Said("done" if invited else "refused", head, status == 200)


def hello(sni):
    """The bytes of a real ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context().wrap_bio(incoming, outgoing, server_hostname=sni)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def with_extension(record, kind, body):
    """The same hello with one more extension at its end."""
    at = 5 + 4 + 2 + 32
    at += 1 + record[at]
    at += 2 + struct.unpack("!H", record[at : at + 2])[0]
    at += 1 + record[at]
    extra = struct.pack("!HH", kind, len(body)) + body
    rest = record[at + 2 :] + extra
    inner = record[9:at] + struct.pack("!H", len(rest)) + rest
    message = b"\x01" + struct.pack("!I", len(inner))[1:] + inner
    return record[:3] + struct.pack("!H", len(message)) + message


def ech_body():
    """An outer ECH extension: HKDF-SHA256, AES-128-GCM, a key and a payload."""
    return b"\0" + struct.pack("!HHBH", 1, 1, 9, 32) + b"k" * 32 + struct.pack("!H", 200) + b"p" * 200


def speaks(dial, name, data):
    """Send bytes and say whether TLS answered them."""
    s = socket.create_connection(address(dial, name), PATIENCE)
    s.settimeout(TIMEOUT)
    s.sendall(data)
    try:
        back = s.recv(4096)
    except OSError as error:
        return Said("refused", str(error))
    return Said("done" if back[:1] == b"\x16" else "refused", repr(back[:20]))


def ech(dial, name, extension):
    """A hello, or one whose true name is encrypted, for a destination that is not opened."""
    data = hello(name)
    if extension == "ech":
        data = with_extension(data, 0xFE0D, ech_body())
    elif extension == "odd":
        data = with_extension(data, 0x0A0A, b"")
    return speaks(dial, name, data)


def odd_sni(dial, name, how):
    """A hello whose server name is not one."""
    data, plain_name = hello(name), name.encode()
    at = data.index(plain_name)
    odd = {
        "nul": plain_name[:3] + b"\0" + plain_name[4:],
        "space": plain_name[:3] + b" " + plain_name[4:],
        "address": b"10.0.0.1"[: len(plain_name)],
    }[how]
    return speaks(dial, name, data[:at] + odd + data[at + len(odd) :])


def hard_hellos(dial):
    """Hellos in pieces, too long, and never finished; then a request must still be served."""
    data = hello("api.test")
    body = data[5:]
    pieces = b"".join(b"\x16\x03\x01\0\x01" + body[i : i + 1] for i in range(len(body)))
    endless = b"\x16\x03\x01\x40\0\x01\xff\xff\xff" + b"\0" * 16380
    open_ones = []
    for attack in (pieces, endless * 64, data[:7], b"\x16\x03\x01\0\0" * 5000, b"\x16\x03\x01\xff\xff"):
        s = socket.create_connection(address(dial, "api.test"), PATIENCE)
        s.settimeout(TIMEOUT)
        try:
            s.sendall(attack)
        except OSError:
            pass
        open_ones.append(s)
    return served(dial)


def served(dial):
    """`done` is harm: an ordinary request is not served any more."""
    status, _ = fetch(dial, "api.test", "GET", "/served")
    ok = status == 200
    return Said("refused" if ok else "done", f"then status {status}", ok)


def slow(dial):
    """Handshakes, heads, bodies and readers that stop half-way; then an ordinary request."""
    open_ones = []
    for _ in range(8):
        s = socket.create_connection(address(dial, "api.test"), PATIENCE)
        s.sendall(hello("api.test")[:30])
        open_ones.append(s)
        s = handshake(dial, "api.test", "api.test")
        s.sendall(b"GET /slow HTTP/1.1\r\nHost: api")
        open_ones.append(s)
        s = handshake(dial, "other.test", "other.test")
        s.sendall(b"POST /slow HTTP/1.1\r\nHost: other.test\r\nContent-Length: 9\r\n\r\nx")
        open_ones.append(s)
        s = handshake(dial, "api.test", "api.test")
        s.sendall(b"GET /bytes/9000000 HTTP/1.1\r\nHost: api.test\r\n\r\n")
        open_ones.append(s)
    return served(dial)


def many(dial, count):
    """As many open connections as there are descriptors; then, without them, a request."""
    open_ones = []
    for _ in range(int(count)):
        try:
            s = socket.create_connection(address(dial, "api.test"), TIMEOUT)
            s.sendall(b"\x16")
            open_ones.append(s)
        except OSError:
            break
    opened = len(open_ones)
    for s in open_ones:
        s.close()
    said = served(dial)
    said.detail += f", after {opened} connections"
    return said
