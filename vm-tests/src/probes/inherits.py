"""What a command of `egret run` can do that a service manager's hardening often forbids.

inherits.py FOLDER: one word per thing that works.
"""
import ctypes
import mmap
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)
works = []


def can(name, what):
    try:
        if what() is not False:
            works.append(name)
    except OSError:
        pass


folder = sys.argv[1]
path = os.path.join(folder, f"inherits-{os.getpid()}")


def set_group_id():
    os.mkdir(path)
    os.chmod(path, 0o2755)
    kept = os.stat(path).st_mode & 0o2000
    os.rmdir(path)
    return bool(kept)


can("write", lambda: open(path, "x").close() or os.unlink(path))
can("just-in-time", lambda: mmap.mmap(-1, 4096, prot=7).close())
can("fixed-addresses", lambda: libc.personality(0x0040000) >= 0)
can("set-group-id", set_group_id)
can("namespaces", lambda: libc.unshare(0x10000000) == 0)
can("limits", lambda: os.sysconf("SC_OPEN_MAX") < 100000)
can("killable", lambda: open("/proc/self/oom_score_adj").read().strip() == "0")
print("works:", " ".join(works))
