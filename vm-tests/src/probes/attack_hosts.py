"""Attacks by programs of the machine that run things for whoever asks, or talk to who does."""

import os
import shutil
import subprocess

from attack_parts import TIMEOUT, Missing, Said

PROBE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.py")


def ran(words, **more):
    if not (os.path.isfile(words[0]) or shutil.which(words[0])):
        raise Missing(f"no {words[0]}")
    try:
        return subprocess.run(
            words, capture_output=True, timeout=TIMEOUT * 15, stdin=subprocess.DEVNULL, **more
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, b"", b"no end")


def said_by(done):
    return (done.stdout + done.stderr).decode(errors="replace").strip()


def started(words, host, port):
    """The usual probe, started by another program."""
    return Said("sent", said_by(ran(words + ["python3", PROBE, "tcp", host, port])))


def systemd_run(network, host, port):
    """The machine's own manager runs the probe, where the link is."""
    words = ["systemd-run", "--quiet", "--wait", "--collect", "--no-ask-password"]
    return started(words + ["nsenter", f"--net=/run/netns/{network}"], host, port)


def bus():
    """The system's message bus answers."""
    done = ran(["busctl", "--system", "--no-pager", "status", "org.freedesktop.DBus"])
    return Said("refused" if done.returncode else "done", said_by(done)[:80])


def at_job(network, host, port):
    """A job for atd."""
    if not shutil.which("at"):
        raise Missing("no at")
    job = f"nsenter --net=/run/netns/{network} python3 {PROBE} tcp {host} {port}\n"
    done = subprocess.run(["at", "now"], input=job.encode(), capture_output=True, timeout=10)
    return Said("sent", said_by(done))


def egret_control(egret, folder, *words):
    """A command for the daemon."""
    done = ran([egret, *words], env={**os.environ, "EGRET_RUN": folder})
    return Said("refused" if done.returncode else "done", said_by(done))
