"""The load generator with the origin on its thread, kept running so that gateways keep their idle connections."""

import json
import os
import select
import subprocess
import time

from lib import certificate
from lib.processes import Failed, Process, free_port

PROCESSOR = 1


class Load:
    """One `loadgen serve`; runs come one after the other.

    One that `gives_way` has what the others of its processor leave over: what it does takes no time of theirs."""

    def __init__(self, tools, directory, name="load", origins=2, gives_way=False):
        self.ports = [free_port() for _ in range(origins)]
        # Where whatever is sent comes back.
        self.echo = free_port() if origins else None
        self.certificate = directory / certificate.ECDSA.chain
        command = ["chrt", "--idle", "0"] if gives_way else []
        command += [str(tools / "loadgen"), "serve", "--cpu", str(PROCESSOR)]
        for port in self.ports:
            command += ["--origin", f"127.0.0.1:{port}"]
        if self.echo:
            command += ["--echo", f"127.0.0.1:{self.echo}"]
        self.errors = open(directory / f"{name}.err", "wb")
        self.process = Process(
            name, command, {PROCESSOR}, directory / f"{name}.err", gives_way,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        self.rest = b""
        if self.ports:
            self.process.wait_for_port(self.ports[0])

    def begin(self, arguments):
        """Starts a run without waiting for it. Over TLS only the run's certificate will do."""
        arguments = [str(argument) for argument in arguments]
        is_secure = any(argument.startswith(("https://", "h2://")) for argument in arguments)
        if is_secure and "--certificate" not in arguments:
            arguments += ["--certificate", str(self.certificate)]
        line = json.dumps(arguments) + "\n"
        self.process.child.stdin.write(line.encode())
        self.process.child.stdin.flush()

    def origin(self, variant):
        """The port that a gateway of a variant forwards to."""
        return self.echo if variant == "stream" else self.ports[0]

    def event(self, seconds):
        """The next thing it says."""
        until = time.monotonic() + seconds
        out = self.process.child.stdout.fileno()
        while b"\n" not in self.rest:
            left = until - time.monotonic()
            if left <= 0 or not self.process.is_alive():
                raise Failed(f"the load generator does not answer:\n{self.process.last_words()}")
            if select.select([out], [], [], min(left, 1))[0]:
                self.rest += os.read(out, 1 << 20)
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)

    def finish(self, seconds, at_begin=None, at_end=None):
        """Follows a run to its end; the functions are called as the measured time begins and ends."""
        while True:
            event = self.event(seconds + 15)
            if event["event"] == "begin" and at_begin:
                at_begin()
            elif event["event"] == "end" and at_end:
                at_end()
            elif event["event"] == "report":
                return event["report"]
            elif event["event"] == "refused":
                raise Failed(f"the load generator refuses: {event['error']}")

    def run(self, arguments, seconds, warm_up, at_begin=None, at_end=None):
        self.begin([*arguments, "-d", seconds, "-w", warm_up])
        return self.finish(seconds + warm_up, at_begin, at_end)

    def end(self):
        self.process.end()
        self.errors.close()
