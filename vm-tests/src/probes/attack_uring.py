"""Attacks by io_uring, which needs no system call of its own for a socket's work."""

import ctypes
import mmap
import os
import socket
import struct
import time

from attack_parts import LIBC, TIMEOUT, check, family, heard, inet

PAYLOAD = b"attack\r\n\r\n"


class Ring:
    """io_uring by hand: enough to submit one operation and to wait for it."""

    def __init__(self, flags):
        params = bytearray(120)
        struct.pack_into("=III", params, 8, flags, 0, 1000)
        block = (ctypes.c_char * 120).from_buffer(params)
        self.fd = check(LIBC.syscall(425, 8, block))
        self.polled = bool(flags & 2)
        sq_entries, cq_entries = struct.unpack_from("=II", params, 0)
        self.sq = struct.unpack_from("=7I", params, 40)
        self.cq = struct.unpack_from("=6I", params, 80)
        size = max(self.sq[6] + sq_entries * 4, self.cq[5] + cq_entries * 16)
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        self.ring = mmap.mmap(self.fd, size, flags)
        self.entries = mmap.mmap(self.fd, sq_entries * 64, flags, offset=0x10000000)

    def word(self, at):
        return struct.unpack_from("=I", self.ring, at)[0]

    def do(self, opcode, fd, off=0, addr=0, length=0):
        tail = self.word(self.sq[1])
        slot = tail & self.word(self.sq[2])
        entry = struct.pack("=BBHiQQIIQ", opcode, 0, 0, fd, off, addr, length, 0, 7)
        self.entries[slot * 64 : slot * 64 + 64] = entry + b"\0" * 24
        struct.pack_into("=I", self.ring, self.sq[6] + slot * 4, slot)
        struct.pack_into("=I", self.ring, self.sq[1], tail + 1)
        head, end = self.word(self.cq[0]), time.monotonic() + TIMEOUT
        if self.polled:
            check(LIBC.syscall(426, self.fd, 1, 0, 2, 0, 0))
        else:
            check(LIBC.syscall(426, self.fd, 1, 0, 0, 0, 0))
        while self.word(self.cq[1]) == head:
            if time.monotonic() > end:
                raise TimeoutError("no completion")
            time.sleep(0.005)
        at = self.cq[5] + (head & self.word(self.cq[2])) * 16
        _, result, _ = struct.unpack_from("=QiI", self.ring, at)
        struct.pack_into("=I", self.ring, self.cq[0], head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


CONNECT, SEND, SOCKET = 16, 26, 45


def uring_setup():
    Ring(0)
    return "done"


def uring(host, port, kind, how):
    """Connect and send by io_uring; `how`: plain, sqpoll, or socket (made by the ring too)."""
    ring = Ring(2 if how == "sqpoll" else 0)
    kind = getattr(socket, kind)
    if how == "socket":
        s = socket.socket(fileno=ring.do(SOCKET, family(host), off=kind))
    else:
        s = socket.socket(family(host), kind)
    name = ctypes.create_string_buffer(inet(host, port, family(host)))
    ring.do(CONNECT, s.fileno(), off=len(name.raw) - 1, addr=ctypes.addressof(name))
    data = ctypes.create_string_buffer(PAYLOAD)
    ring.do(SEND, s.fileno(), addr=ctypes.addressof(data), length=len(PAYLOAD))
    return heard(s)
