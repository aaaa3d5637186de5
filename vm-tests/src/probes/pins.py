"""Pins programs in the place of the daemon's: pins.py DIR refuse|agent [CGROUP]

refuse: every hook says no, as to a process that is no agent yet.
agent:  raw sockets are refused, everything else passes and questions for names are led to
        loopback, as to an agent that is served.

They are pinned below DIR/closed. With CGROUP they are attached to it as well, by links that are
pinned below DIR/guards.
"""
import ctypes
import os
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
SYS_BPF = 321  # x86_64
PROG_LOAD, OBJ_PIN, LINK_CREATE = 5, 6, 28
CGROUP_SKB, CGROUP_SOCK, CGROUP_SOCK_ADDR = 8, 9, 18
HOOKS = {
    "egress": (CGROUP_SKB, 1),
    "sock_create": (CGROUP_SOCK, 2),
    "connect4": (CGROUP_SOCK_ADDR, 10),
    "connect6": (CGROUP_SOCK_ADDR, 11),
    "sendmsg4": (CGROUP_SOCK_ADDR, 14),
    "sendmsg6": (CGROUP_SOCK_ADDR, 15),
}


def insn(code, dst=0, src=0, off=0, imm=0):
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


EXIT = insn(0x95)


def answer(value):
    return insn(0xB7, imm=value)  # r0 = value


# r0 = 1; r1 = ((struct bpf_sock *)r1)->type; if r1 == SOCK_RAW: r0 = 0
NO_RAW = answer(1) + insn(0x61, 1, 1, 8) + insn(0x55, 1, off=1, imm=3) + answer(0) + EXIT

# ((struct bpf_sock_addr *)r1)->user_ip4 = 127.0.0.1; r0 = 1
TO_LOOPBACK = insn(0xB7, 2, imm=0x0100007F) + insn(0x63, 1, 2, 4) + answer(1) + EXIT


def program(hook, mode):
    if mode == "refuse":
        return answer(0) + EXIT
    return {"sock_create": NO_RAW, "connect4": TO_LOOPBACK}.get(hook, answer(1) + EXIT)


def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    got = libc.syscall(SYS_BPF, command, buffer, len(attributes))
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got


def load(kind, attach, program):
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"GPL")
    return bpf(PROG_LOAD, struct.pack(
        "<IIQQIIQII16sII", kind, len(program) // 8, ctypes.addressof(code),
        ctypes.addressof(licence), 0, 0, 0, 0, 0, b"stub", 0, attach))


def pin(fd, folder, name):
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, name)
    if os.path.exists(path):
        os.unlink(path)
    text = ctypes.create_string_buffer(path.encode())
    bpf(OBJ_PIN, struct.pack("<QII", ctypes.addressof(text), fd, 0))


folder, mode = sys.argv[1:3]
for hook, (kind, attach) in HOOKS.items():
    loaded = load(kind, attach, program(hook, mode))
    pin(loaded, os.path.join(folder, "closed"), hook)
    for cgroup in sys.argv[3:]:
        target = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        link = bpf(LINK_CREATE, struct.pack("<IIII", loaded, target, attach, 0))
        pin(link, os.path.join(folder, "guards"), hook)
