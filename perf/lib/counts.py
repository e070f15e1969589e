"""System calls a request and completions a wait, counted in short runs of their own: counting slows what it counts.

The kernel's tracepoints through `perf stat` where they may be used, otherwise `strace -c`.
"""

import re
import shutil
import signal
import socket
import ssl
import subprocess
import time

from lib import certificate
from lib.processes import Failed, Process
from lib.targets import KEY_HEADER

SECONDS = 1.0
WAITS = ["syscalls:sys_enter_io_uring_enter", "syscalls:sys_enter_epoll_wait",
         "syscalls:sys_enter_epoll_pwait", "syscalls:sys_enter_epoll_pwait2"]
EVENTS = ["raw_syscalls:sys_enter", "io_uring:io_uring_complete", *WAITS]
KEYED = (KEY_HEADER,)


def fetch(port, path, headers=(), variant="plain"):
    """One answer's body, for looking at."""
    return answer(port, path, headers, variant)[1]


def connect(port, variant):
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    if variant != "tls":
        return connection
    context = ssl.create_default_context()
    # Whose certificate it is the load generator looks at.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connection, server_hostname=certificate.NAME)


def by_http2(port, path, headers):
    """The same over HTTP/2 in clear."""
    command = ["curl", "--silent", "--http2-prior-knowledge", "--max-time", "5", "--write-out", "\n%{http_code}",
               *(word for header in headers for word in ("--header", header)), f"http://127.0.0.1:{port}{path}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError as error:
        raise Failed("curl is not installed") from error
    body, _, status = done.stdout.rpartition("\n")
    return status, body


def answer(port, path, headers=(), variant="plain"):
    """One answer's status and body."""
    if variant == "h2":
        return by_http2(port, path, headers)
    with connect(port, variant) as connection:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, "Connection: close", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.decode("latin-1").partition("\r\n\r\n")
    return head.split(" ")[1] if " " in head else "", body


def with_perf(pids):
    """Counts of events in all threads of the processes during a second."""
    command = ["perf", "stat", "-x", ",", "-e", ",".join(EVENTS), "-p", ",".join(map(str, pids)),
               "--", "sleep", str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    counts = {}
    for line in done.stderr.splitlines():
        words = line.split(",")
        if len(words) > 2 and words[2] in EVENTS and words[0].isdigit():
            counts[words[2]] = int(words[0])
    if "raw_syscalls:sys_enter" not in counts:
        return None
    return {
        "calls": counts["raw_syscalls:sys_enter"] / SECONDS,
        "waits": sum(counts.get(name, 0) for name in WAITS) / SECONDS,
        "completions": counts.get("io_uring:io_uring_complete", 0) / SECONDS,
        "enters": counts.get(WAITS[0], 0) / SECONDS,
    }


def with_strace(pids, directory):
    """The same by strace, which slows its subject so much that batches grow."""
    log = directory / "strace.log"
    attach = [word for pid in pids for word in ("-p", str(pid))]
    process = Process("strace", ["strace", "-f", "-c", "-o", str(log), *attach], {1}, directory / "strace.out")
    try:
        begin = time.monotonic()
        time.sleep(SECONDS)
        process.child.send_signal(signal.SIGINT)
        process.child.wait(10)
        elapsed = time.monotonic() - begin
    finally:
        process.end()
    calls = waits = enters = 0
    for line in log.read_text().splitlines() if log.exists() else ():
        row = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", line)
        if row and row.group(2) != "total":
            count, name = int(row.group(1)), row.group(2)
            calls += count
            waits += count if name.startswith(("epoll_", "io_uring_enter")) and name != "epoll_ctl" else 0
            enters += count if name == "io_uring_enter" else 0
    return {"calls": calls / elapsed, "waits": waits / elapsed, "completions": 0, "enters": enters / elapsed}


def of_target(case, target, load):
    """One target under the case's load."""
    pids = target.pids()
    load.begin([*case.load_arguments(target.port, case.rate), "-d", SECONDS + 1.2, "-w", max(0.3, case.warm_up)])
    counted = []

    def count():
        time.sleep(0.05)
        found = with_perf(pids) if shutil.which("perf") else None
        counted.append(found or with_strace(pids, target.directory))

    rate = load.finish(5 + case.warm_up, at_begin=count)["rate"]
    seen = counted[0]
    return {
        "calls_per_request": seen["calls"] / rate if rate else None,
        "requests_per_wait": rate / seen["waits"] if seen["waits"] else None,
        # Only a ring has completions; with strace nobody counts them.
        "batch": seen["completions"] / seen["enters"] if seen["completions"] and seen["enters"] else None,
    }


def of_case(case, targets, load, say):
    if case.share or not (shutil.which("perf") or shutil.which("strace")):
        return {}
    found = {target.name: of_target(case, target, load) for target in targets if target.name != "again"}
    say("    system calls a request: " + "  ".join(
        f"{name} {figures['calls_per_request']:.2f}" for name, figures in found.items()
        if figures["calls_per_request"] is not None))
    return found
