"""What surrounds every run, inside and outside: a resolver that the test watches, a socket that
was opened before, and, for the control, the user.

`attack_around.py RESOLV_CONF HOST PORT UID COMMAND…`; UID `-` leaves the user as it is. Expects a
mount namespace of its own.
"""

import os
import socket
import subprocess
import sys

resolv, host, port, uid, *command = sys.argv[1:]
subprocess.run(["mount", "--bind", resolv, "/etc/resolv.conf"], check=True)
before = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
before.connect((host, int(port)))
os.dup2(before.fileno(), 9, inheritable=True)
if uid not in ("-", "0"):
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))
os.execvp(command[0], command)
