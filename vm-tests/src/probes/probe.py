"""Probes that an agent, or malware in its place, would send. Standard library only.

Each probe prints one line and exits 0 if it was answered by a canary, 3 if it was not.
"""

import os
import socket
import ssl
import struct
import sys
import urllib.error
import urllib.request

TIMEOUT = 3


def answered(data):
    ok = data.startswith(b"CANARY")
    print("answered" if ok else f"no canary: {data[:200]!r}")
    sys.exit(0 if ok else 3)


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def tcp(host, port):
    s = socket.create_connection((host, int(port)), TIMEOUT)
    s.settimeout(TIMEOUT)
    answered(s.recv(100))


def mapped(host, port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    s.settimeout(TIMEOUT)
    s.connect((f"::ffff:{host}", int(port)))
    answered(s.recv(100))


def udp(host, port):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.settimeout(TIMEOUT)
    s.sendto(b"probe", (host, int(port)))
    answered(s.recv(100))


def udp_connected(host, port):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.settimeout(TIMEOUT)
    s.connect((host, int(port)))
    s.send(b"probe")
    answered(s.recv(100))


def raw(host, _port):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    s.settimeout(TIMEOUT)
    echo = struct.pack("!BBHHH", 8, 0, 0xF7FF, 0, 0)
    s.sendto(echo, (host, 0))
    print("sent")


def packet(device, _port):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((device, 0))
    s.send(b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"probe" * 10)
    print("sent")


def rthdr(host, port):
    """UDP to ::1 by way of another host, as a type 4 routing header with one segment says."""
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    via = socket.inet_pton(socket.AF_INET6, host)
    last = socket.inet_pton(socket.AF_INET6, "2001:db8:ffff::1")
    header = struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + last + via
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RTHDR, header)
    s.sendto(b"probe", ("2001:db8:ffff::1", int(port)))
    print("sent")


def bindtodevice(host, port, device):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    s.settimeout(TIMEOUT)
    s.sendto(b"probe", (host, int(port)))
    answered(s.recv(100))


def pktinfo(host, port, device):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(TIMEOUT)
    index = socket.if_nametoindex(device)
    info = struct.pack("=I4s4s", index, b"\0" * 4, b"\0" * 4)
    s.sendmsg([b"probe"], [(socket.IPPROTO_IP, 8, info)], 0, (host, int(port)))
    answered(s.recv(100))


def multicast(_host, port, device=None):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if device:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    s.sendto(b"probe", ("239.7.7.7", int(port)))
    print("sent")


def urllib_get(url):
    """A client that honours no proxy and is not told of one."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=30) as answer:
            print(answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())


def tls(host, port=443):
    context = ssl.create_default_context()
    s = socket.create_connection((host, int(port)), 30)
    return context.wrap_socket(s, server_hostname=host)


def websocket(host):
    s = tls(host)
    s.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        more = s.recv(4096)
        if not more:
            break
        head += more
    print(head.split(b"\r\n")[0].decode())
    for message in (b"first", b"second" * 1000):
        s.sendall(message)
        back = b""
        while len(back) < len(message):
            more = s.recv(4096)
            if not more:
                break
            back += more
        print("echoed" if back == message else f"not echoed: {back[:50]!r}")


def bytes_to(host, port, hexes):
    """Raw bytes over TCP; prints what comes back until the end."""
    s = socket.create_connection((host, int(port)), 30)
    s.settimeout(30)
    s.sendall(bytes.fromhex(hexes))
    read(s)


def bytes_over_tls(host, hexes):
    s = tls(host)
    s.settimeout(30)
    s.sendall(bytes.fromhex(hexes))
    read(s)


def read(s):
    data = b""
    try:
        while True:
            more = s.recv(4096)
            if not more:
                break
            data += more
    except (ConnectionResetError, ssl.SSLError) as error:
        print("closed:", error)
    print("received", data[:600])


def datagram(host, port, hexes):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.settimeout(TIMEOUT)
    s.sendto(bytes.fromhex(hexes), (host, int(port)))
    print("received", s.recv(4096).hex())


def resolve(name):
    print(socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)[0][4][0])


def beat(path, url):
    """Tries to get out again and again, for as long as it lives."""
    import time

    n = 0
    while True:
        n += 1
        with open(path, "w") as f:
            f.write(str(n))
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            opener.open(url, timeout=1).read(100)
        except Exception:
            pass
        time.sleep(0.05)


if __name__ == "__main__":
    try:
        globals()[sys.argv[1]](*sys.argv[2:])
    except (OSError, urllib.error.URLError) as error:
        print(f"refused: {type(error).__name__}: {error}")
        sys.exit(3)
