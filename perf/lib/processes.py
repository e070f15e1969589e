"""Processes of a run: started pinned, ended by their own ids, never left behind.

Each is told by the kernel to end when the runner does, however that ends.
"""

import atexit
import ctypes
import os
import resource
import signal
import socket
import subprocess
import time

from lib import machine

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
STARTED = []
# Niceness of sessions: what is measured comes before all other programs, and who gives way after them.
MOST, LEAST = -20, 19


class Failed(Exception):
    """Something the run needs did not work; the text is for the person at the terminal."""


def weigh(pid, niceness):
    """How much of its processor a session gets beside others. Sessions share it first (sched_autogroup_enabled), so a process's own niceness or policy
    would say nothing; within the session threads are as before."""
    try:
        with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as group:
            group.write(str(niceness))
    except OSError:
        pass  # No such groups, or not root: others take from us what they take.


class Process:
    """A process on given processors, its output in a file."""

    def __init__(self, name, command, processors, log, gives_way=False, **more):
        self.name, self.log = name, log
        self.file = None if "stdout" in more else open(log, "wb")

        def prepare():
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, processors)
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

        options = {"stdout": self.file, "stderr": self.file, "stdin": subprocess.DEVNULL, **more}
        self.child = subprocess.Popen(
            command, preexec_fn=prepare, start_new_session=True, close_fds=True, **options)
        weigh(self.pid, LEAST if gives_way else MOST)
        STARTED.append(self)

    @property
    def pid(self):
        return self.child.pid

    def pids(self):
        return machine.children(self.pid)

    def is_alive(self):
        return self.child.poll() is None

    def last_words(self):
        return machine.read(self.log)[-2000:]

    def wait_for_port(self, port, seconds=20):
        """Until something listens there."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.is_alive():
                raise Failed(f"{self.name} ended at once:\n{self.last_words()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Failed(f"{self.name} does not listen on port {port}:\n{self.last_words()}")

    def end(self, grace=2):
        """Asks it to end, then makes it."""
        pids = self.pids() if self.is_alive() else []
        if self.is_alive():
            # Some take their time to say good-bye to connections; there is nothing to wait for here.
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(grace)
            except subprocess.TimeoutExpired:
                pass
        if self.is_alive():
            self.child.kill()
            self.child.wait(5)
        for pid in pids[1:]:
            # Children that outlived it, if they are still the same: nobody else has their session.
            try:
                if os.getsid(pid) == self.pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self in STARTED:
            STARTED.remove(self)
        if self.file:
            self.file.close()


@atexit.register
def end_all():
    for process in list(STARTED):
        process.end(grace=0.3)


_next_port = [21000]


def free_port():
    """A port nobody listens on, below those the system gives to outgoing connections."""
    while _next_port[0] < 32000:
        _next_port[0] += 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", _next_port[0]))
                return _next_port[0]
            except OSError:
                continue
    raise Failed("no free port between 21000 and 32000")
