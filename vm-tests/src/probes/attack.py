"""Runs a list of attacks, one forked child each, and prints one JSON line per attack.

The plan is JSON: [{"id": …, "call": …, "args": […]}, …]. Outside egret this is the control,
inside it is the attack; the words are the same. `attack.py one CALL ARGS…` runs a single one in
this process. Standard library only.
"""

import errno
import json
import os
import select
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from attack_parts import Missing, Said  # noqa: E402
import attack_flows  # noqa: E402
import attack_hosts  # noqa: E402
import attack_names  # noqa: E402
import attack_slow  # noqa: E402
import attack_sockets  # noqa: E402
import attack_system  # noqa: E402
import attack_tickets  # noqa: E402
import attack_tls  # noqa: E402
import attack_uring  # noqa: E402

MODULES = (
    attack_sockets,
    attack_names,
    attack_tls,
    attack_tickets,
    attack_system,
    attack_hosts,
    attack_uring,
    attack_flows,
    attack_slow,
)
# What a kernel says that lacks something.
LACKS = {
    errno.EAFNOSUPPORT,
    errno.EPROTONOSUPPORT,
    errno.ESOCKTNOSUPPORT,
    errno.ENOSYS,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
}


def attempt(call, args):
    """(what happened, in more words, whether the attack's own control inside succeeded)"""
    probe = next((getattr(m, call) for m in MODULES if hasattr(m, call)), None)
    if probe is None:
        return "missing", f"no probe {call}", False
    try:
        said = probe(*args)
    except Missing as why:
        return "missing", str(why), False
    except OSError as error:
        name = errno.errorcode.get(error.errno, type(error).__name__)
        kind = "missing" if error.errno in LACKS else "refused"
        return kind, f"{name}: {error}"[:160], False
    except Exception as error:  # a broken probe must say so, not look like a wall
        return "broken", f"{type(error).__name__}: {error}"[:160], False
    if isinstance(said, Said):
        return said.kind, said.detail[:160], said.control
    return said, "", False


def child(writer, item):
    os.setpgid(0, 0)
    said, detail, control = attempt(item["call"], item["args"])
    line = {"said": said, "detail": detail, "control": control}
    os.write(writer, json.dumps(line).encode())
    os._exit(0)


def one(item, patience):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            child(writer, item)
        finally:
            os._exit(1)
    os.close(writer)
    data, end = b"", time.monotonic() + patience
    while True:
        ready, _, _ = select.select([reader], [], [], max(0, end - time.monotonic()))
        more = os.read(reader, 65536) if ready else b""
        if not more:
            break
        data += more
        if data.endswith(b"}"):
            break
    os.close(reader)
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
    os.waitpid(pid, 0)
    if not data:
        return {"said": "broken", "detail": "no answer within its time", "control": False}
    return json.loads(data)


def single(call, args):
    said, detail, control = attempt(call, args)
    print(json.dumps({"said": said, "detail": detail, "control": control}), flush=True)


def main():
    if sys.argv[1] == "one":
        single(sys.argv[2], sys.argv[3:])
        return
    plan, settle, patience = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    with open(plan) as f:
        items = json.load(f)
    for item in items:
        start = time.time()
        line = one(item, patience)
        # A packet of this attack is counted before the next one begins.
        time.sleep(settle)
        line.update(id=item["id"], start=start)
        print(json.dumps(line), flush=True)
    print(json.dumps({"id": "end", "start": time.time()}), flush=True)


if __name__ == "__main__":
    main()
