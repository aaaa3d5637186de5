"""Attacks by sockets: every way that is known to put a packet on the wire."""

import ctypes
import os
import socket
import struct
import time

from attack_parts import LIBC, TIMEOUT, Missing, Said, check, family, heard, inet

PAYLOAD = b"attack\r\n\r\n"


def tcp(host, port):
    s = socket.socket(family(host), socket.SOCK_STREAM)
    s.settimeout(TIMEOUT)
    s.connect((host, int(port)))
    s.send(PAYLOAD)
    return heard(s)


def own_loopback():
    """The agent's own server on loopback, by TCP and by UDP."""
    server = socket.create_server(("127.0.0.1", 0))
    s = socket.create_connection(server.getsockname(), TIMEOUT)
    peer, _ = server.accept()
    peer.send(b"CANARY")
    box = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    box.bind(("127.0.0.1", 0))
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.sendto(b"CANARY", box.getsockname())
    box.settimeout(TIMEOUT)
    got = (s.recv(10), box.recv(10))
    return "done" if got == (b"CANARY", b"CANARY") else Said("refused", str(got))


def tcp_scoped(host, port, scope):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    s.settimeout(TIMEOUT)
    s.connect((host, int(port), 0, int(scope)))
    s.send(PAYLOAD)
    return heard(s)


def tcp_mapped(host, port):
    return tcp(f"::ffff:{host}", port)


def udp(host, port):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.sendto(PAYLOAD, (host, int(port)))
    return heard(s)


def udp_mapped(host, port):
    return udp(f"::ffff:{host}", port)


def udp_connected(host, port):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.connect((host, int(port)))
    s.send(PAYLOAD)
    return heard(s)


def sendmsg(host, port):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.sendmsg([PAYLOAD], [], 0, (host, int(port)))
    return heard(s)


def sendmmsg(host, port):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    name = ctypes.create_string_buffer(inet(host, port, family(host)))
    data = ctypes.create_string_buffer(PAYLOAD)
    vector = struct.pack("=QQ", ctypes.addressof(data), len(PAYLOAD))
    vector = ctypes.create_string_buffer(vector)
    head = struct.pack(
        "=QIIQQQQiI",
        ctypes.addressof(name),
        len(name.raw) - 1,
        0,
        ctypes.addressof(vector),
        1,
        0,
        0,
        0,
        0,
    )
    messages = ctypes.create_string_buffer(head + b"\0" * 8)
    check(LIBC.sendmmsg(s.fileno(), messages, 1, 0))
    return heard(s)


def udp_elsewhere(host, port):
    """Connected to oneself, sent to somebody else."""
    own = socket.socket(family(host), socket.SOCK_DGRAM)
    own.bind(("::1" if ":" in host else "127.0.0.1", 0))
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.connect(own.getsockname())
    s.send(b"to myself")
    # A socket with a loopback source address cannot leave: forget it first.
    raw_connect(s, struct.pack("=H", socket.AF_UNSPEC) + b"\0" * 26)
    s.connect((host, int(port)))
    s.send(PAYLOAD)
    return heard(s)


def raw_connect(s, address):
    check(LIBC.connect(s.fileno(), address, len(address)))


def raw_sendto(s, address):
    check(LIBC.sendto(s.fileno(), PAYLOAD, len(PAYLOAD), 0, address, len(address)))


def udp_unspec(host, port):
    """An address of family AF_UNSPEC, which UDP over IPv4 takes for AF_INET."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw_sendto(s, inet(host, port, socket.AF_UNSPEC))
    return heard(s)


def udp_v4_on_v6(host, port):
    """A sockaddr_in given to an IPv6 socket."""
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    raw_sendto(s, inet(host, port))
    return heard(s)


def udp_v4_on_v6_connected(host, port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    raw_connect(s, inet(host, port))
    s.send(PAYLOAD)
    return heard(s)


def fastopen(host, port):
    s = socket.socket(family(host), socket.SOCK_STREAM)
    s.settimeout(TIMEOUT)
    s.sendto(PAYLOAD, 0x20000000, (host, int(port)))
    return heard(s)


def fastopen_connect(host, port):
    s = socket.socket(family(host), socket.SOCK_STREAM)
    s.setsockopt(socket.IPPROTO_TCP, 30, 1)
    s.settimeout(TIMEOUT)
    s.connect((host, int(port)))
    s.send(PAYLOAD)
    return heard(s)


def stream(host, port, protocol):
    """A stream of another transport: MPTCP 262, SCTP 132."""
    s = socket.socket(family(host), socket.SOCK_STREAM, int(protocol))
    s.settimeout(TIMEOUT)
    s.connect((host, int(port)))
    s.send(PAYLOAD)
    return heard(s)


def dccp(host, port):
    s = socket.socket(socket.AF_INET, 6, 33)
    s.settimeout(TIMEOUT)
    s.connect((host, int(port)))
    return "sent"


def udplite(host, port):
    s = socket.socket(family(host), socket.SOCK_DGRAM, 136)
    s.sendto(PAYLOAD, (host, int(port)))
    return "sent"


def ping(host, _port, kind):
    """An ICMP echo by a raw socket, or by one of the unprivileged kind."""
    six = ":" in host
    protocol = 58 if six else 1
    s = socket.socket(family(host), getattr(socket, kind), protocol)
    body = struct.pack("!BBHHH", 128 if six else 8, 0, 0 if six else 0xF7FF, 0, 0)
    s.sendto(body, (host, 0))
    return "sent"


def raw_header(host, port):
    """A UDP datagram whose IP header is the attacker's own."""
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    udp_part = struct.pack("!HHHH", 4000, int(port), 8 + len(PAYLOAD), 0) + PAYLOAD
    target = socket.inet_aton(host)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp_part), 0, 0, 64, 17, 0, b"\0" * 4, target)
    s.sendto(head + udp_part, (host, 0))
    return "sent"


def packet(device, index):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    raw_connect_packet = struct.pack("=HHiHBB8s", socket.AF_PACKET, 0, int(index), 0, 0, 0, b"")
    check(LIBC.bind(s.fileno(), raw_connect_packet, len(raw_connect_packet)))
    s.send(b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"attack " * 10)
    return "sent"


def opens(domain, kind, protocol):
    """A socket of a family that no hook of a cgroup governs."""
    socket.socket(int(domain), int(kind), int(protocol))
    return "done"


def rthdr(host, port):
    """UDP to a routed address by way of the far host, by a type 4 routing header."""
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    via = socket.inet_pton(socket.AF_INET6, host)
    last = socket.inet_pton(socket.AF_INET6, "2001:db8:ffff::1")
    header = struct.pack("!BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + last + via
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RTHDR, header)
    s.sendto(PAYLOAD, ("2001:db8:ffff::1", int(port)))
    return "sent"


def bindtodevice(host, port, device):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    s.sendto(PAYLOAD, (host, int(port)))
    return heard(s)


def pktinfo(host, port, index):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    if ":" in host:
        about = (socket.IPPROTO_IPV6, 50, struct.pack("=16si", b"", int(index)))
    else:
        about = (socket.IPPROTO_IP, 8, struct.pack("=i4s4s", int(index), b"", b""))
    s.sendmsg([PAYLOAD], [about], 0, (host, int(port)))
    return heard(s)


def unicast_if(host, port, index):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    where = (socket.IPPROTO_IPV6, 76) if ":" in host else (socket.IPPROTO_IP, 50)
    s.setsockopt(*where, struct.pack("!I", int(index)))
    s.sendto(PAYLOAD, (host, int(port)))
    return heard(s)


def multicast(host, port, index):
    s = socket.socket(family(host), socket.SOCK_DGRAM)
    if ":" in host:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, struct.pack("=i", int(index)))
    else:
        request = struct.pack("=4s4si", b"", b"", int(index))
        s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
    s.sendto(PAYLOAD, (host, int(port)))
    return "sent"


def broadcast(host, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.sendto(PAYLOAD, (host, int(port)))
    return "sent"


def used_fd(number):
    """A connected UDP socket that an ancestor opened before egret was started."""
    s = socket.socket(fileno=os.dup(int(number)))
    s.send(PAYLOAD)
    return "sent"


def handed_fd(ask, path):
    """A socket that a program of the machine hands out on a Unix socket; it makes that socket when
    this has begun."""
    with open(ask, "a"):
        pass
    end = time.monotonic() + TIMEOUT * 3
    while True:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(TIMEOUT)
        try:
            s.connect("\0" + path[1:] if path.startswith("@") else path)
            break
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
    _, fds, _, _ = socket.recv_fds(s, 16, 1)
    return used_fd(fds[0])


def held_sockets(host, tcp_port, udp_port, ready, go):
    """Sockets that are open already when their process becomes an agent's."""
    t = socket.create_connection((host, int(tcp_port)), TIMEOUT)
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.connect((host, int(udp_port)))
    unconnected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    answered = t.recv(10).startswith(b"CANARY")
    u.send(PAYLOAD)
    with open(ready, "w") as f:
        f.write("1")
    while not os.path.exists(go):
        time.sleep(0.02)
    for _ in range(3):
        for send in (
            lambda: t.send(PAYLOAD),
            lambda: u.send(PAYLOAD),
            lambda: unconnected.sendto(PAYLOAD, (host, int(udp_port))),
        ):
            try:
                send()
            except OSError:
                pass
        time.sleep(0.05)
    return Said("sent", "", answered)


def listeners():
    """(family, port) of every TCP socket that listens here."""
    found = []
    for path, kind in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        try:
            with open(path) as f:
                lines = f.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A":
                found.append((kind, int(fields[1].rsplit(":", 1)[1], 16)))
    return found


def loopbacks(kind):
    if kind == socket.AF_INET:
        return ["127.0.0.1", "127.9.9.9", "0.0.0.0"]
    return ["::1", "::"]


def take_port(ports):
    """Bind the interceptor's ports, `all` that listen here or these. Its control: another port can
    be bound in the same way."""
    taken, wins, own = listeners(), [], 0
    if ports != "all":
        taken = [(kind, port) for kind, port in taken if str(port) in ports.split(",")]
    if not taken:
        raise Missing("nothing listens here")
    for kind, port in taken + [(socket.AF_INET, 0)]:
        for address in loopbacks(kind):
            s = socket.socket(kind, socket.SOCK_STREAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                s.bind((address, port))
                s.listen()
                if port:
                    wins.append(f"{address}:{port}")
                else:
                    own += 1
            except OSError:
                pass
            s.close()
    return Said("done" if wins else "refused", " ".join(wins), own == 3)


def dial_interceptor(*allowed):
    """Connect straight to each listener. Its control: the agent's own listener answers."""
    others = [(kind, port) for kind, port in listeners() if str(port) not in allowed]
    own = socket.socket()
    own.bind(("0.0.0.0", 0))
    own.listen()
    mine, wins, control = own.getsockname()[1], [], 0
    if not others:
        raise Missing("nothing listens here")
    for kind, port in others + [(socket.AF_INET, mine)]:
        for address in loopbacks(kind):
            s = socket.socket(kind, socket.SOCK_STREAM)
            s.settimeout(TIMEOUT)
            try:
                s.connect((address, port))
                if port == mine:
                    control += 1
                else:
                    wins.append(f"{address}:{port}")
            except OSError:
                pass
            s.close()
    return Said("done" if wins else "refused", " ".join(wins), control == 3)


def dial_ports(ports, name, path):
    """Another agent's interceptor, by ports that listened elsewhere: connect, and where that
    works, ask it for what only the other may have."""
    wins = []
    for port in ports.split(","):
        for host in ("127.0.0.1", "::1", "0.0.0.0"):
            try:
                s = socket.create_connection((host, int(port)), TIMEOUT)
            except OSError:
                continue
            wins.append(f"{host}:{port}")
            try:
                s.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
                s.recv(100)
            except OSError:
                pass
    return Said("done" if wins else "refused", " ".join(wins))


def take_ports(ports):
    """Bind these, whoever had them before."""
    wins = []
    for port in ports.split(","):
        for kind, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            s = socket.socket(kind, socket.SOCK_STREAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, int(port)))
                s.listen()
                wins.append(f"{host}:{port}")
            except OSError:
                pass
    return Said("done" if wins else "refused", " ".join(wins))


def answer_unbound(told):
    """The same with a port that the kernel chooses, which no bind asks for."""
    s = socket.socket()
    s.listen()
    with open(told, "w") as f:
        f.write(str(s.getsockname()[1]))
    s.settimeout(TIMEOUT * 2)
    peer, _ = s.accept()
    peer.send(b"FROM THE AGENT")
    time.sleep(0.1)
    return "done"


def answer_inbound(port):
    """Listen on every address and answer whoever comes; the harness knocks from far away."""
    s = socket.create_server(("0.0.0.0", int(port)))
    s.settimeout(TIMEOUT * 2)
    peer, _ = s.accept()
    peer.send(b"FROM THE AGENT")
    time.sleep(0.1)
    return "done"


def by_unix_socket(path):
    """A service of the machine that would do something for whoever asks."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(TIMEOUT)
    s.connect("\0" + path[1:] if path.startswith("@") else path)
    return "done" if s.recv(100).startswith(b"CANARY") else "refused"
