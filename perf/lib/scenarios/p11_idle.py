"""P11: what an idle keep-alive connection costs in memory, as the slope over 10,000 of them."""

import socket
import time

from lib import machine
from lib.scenarios import ours
from lib.targets import KEY_HEADER, SHOWN, VARIANTS

PURPOSE = "10,000 idle keep-alive connections: memory each, and latency beside them"
MINUTES = 4
STEPS, STEP = 4, 2500
# Buffers lent to a connection go back when it has been quiet for a while.
REST_SECONDS = 3
SLOPE_BYTES_MAX = 1024


def fill(port, connections):
    """Opens a step of connections, each of which asks once."""
    for _ in range(STEP):
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        connection.sendall(f"GET /128 HTTP/1.1\r\nHost: idle\r\n{KEY_HEADER}\r\n\r\n".encode())
        if not connection.recv(4096).startswith(b"HTTP/1.1 200"):
            raise OSError("an answer was not 200")
        connections.append(connection)


def measure(bench, target):
    """Resident memory after each step, and latency with all of them open."""
    quiet = ours.sample(bench, target, "/128", "-c", 16, "-r", 1000)
    connections, seen = [], [machine.rss_kib(target.pids())]
    try:
        for _ in range(STEPS):
            fill(target.port, connections)
            time.sleep(REST_SECONDS)
            seen.append(machine.rss_kib(target.pids()))
        beside = ours.sample(bench, target, "/128", "-c", 16, "-r", 1000)
    finally:
        for connection in connections:
            connection.close()
    # The first step warms pools up; the slope is that of the others.
    slope = (seen[-1] - seen[1]) * 1024 / (STEP * (STEPS - 1))
    return {"kib": seen, "slope": slope, "p99_quiet": quiet["load"]["latency_us"]["p99"],
            "p99_beside": beside["load"]["latency_us"]["p99"]}


def run(bench, say):
    seen = {}
    for target in ours.all_kinds(bench):
        # A relay has two buffers for each: it says nothing here.
        if target.name == "relay":
            continue
        name = SHOWN.get(target.name, target.name)
        try:
            target.start(VARIANTS["plain"], bench.load.ports[0])
            seen[name] = measure(bench, target)
            say(f"  {name}: {seen[name]['slope']:.0f} bytes a connection")
        except OSError as error:
            say(f"  {name}: {error}")
        finally:
            target.end()
    rows = [[name, f"{found['kib'][0] / 1024:.1f}", f"{found['kib'][-1] / 1024:.1f}", f"{found['slope']:.0f}",
             f"{found['p99_quiet']:.0f}", f"{found['p99_beside']:.0f}"] for name, found in seen.items()]
    return {
        "columns": ["", "RSS MiB, none", "RSS MiB, 10,000", "bytes each", "p99 us, none", "p99 us, beside 10,000"],
        "rows": rows, "samples": seen,
        "checks": [(f"bytes of an idle connection of {name}", found["slope"], "at most", SLOPE_BYTES_MAX)
                   for name, found in seen.items() if name.startswith("ours")],
    }
