"""A service that asks and asks: a served name, an address that nobody serves, and datagrams.

load.py FILE URL HOST TCP UDP: counts go to FILE as JSON after each round, for as long as it lives.
Standard library only. What it counts as reached is a leak.
"""

import json
import os
import socket
import sys
import time
import urllib.request

FILE, URL, HOST, TCP, UDP = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
COUNTS = {"rounds": 0, "served": 0, "refused": 0, "reached": 0, "sent": 0, "unsent": 0}


def served():
    with urllib.request.urlopen(URL, timeout=3) as answer:
        answer.read()
        return answer.status == 200


def reached():
    with socket.create_connection((HOST, TCP), 3) as s:
        s.settimeout(1)
        return s.recv(100).startswith(b"CANARY")


def sent():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"probe", (HOST, UDP))
        return True


def attempt(what):
    try:
        return what()
    except OSError:
        return False


while True:
    COUNTS["served" if attempt(served) else "refused"] += 1
    COUNTS["reached"] += attempt(reached)
    COUNTS["sent" if attempt(sent) else "unsent"] += 1
    COUNTS["rounds"] += 1
    with open(FILE + ".new", "w") as f:
        json.dump(COUNTS, f)
    os.rename(FILE + ".new", FILE)
    time.sleep(0.02)
