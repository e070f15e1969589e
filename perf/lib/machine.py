"""What the kernel tells about processes and the machine, and what a run must know of it.

Processor time is the sum of /proc/PID/task/*/schedstat over a gateway's processes: nanoseconds, exact, where the usual
counters are sampled 250 times a second. Those serve only for the split into user and system time.
"""

import os
import platform
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")


def read(path):
    """A file's text, or nothing if it is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def children(pid):
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for task in listing(f"/proc/{parent}/task"):
            found += [int(child) for child in read(f"/proc/{parent}/task/{task}/children").split()]
    return found


def listing(path):
    try:
        return os.listdir(path)
    except OSError:
        return []


def processor_ns(pids):
    """How long all threads of the processes have run."""
    total = 0
    for pid in pids:
        for task in listing(f"/proc/{pid}/task"):
            words = read(f"/proc/{pid}/task/{task}/schedstat").split()
            total += int(words[0]) if words else 0
    return total


def user_and_system(pids):
    """Ticks in user and in system mode, for their proportion."""
    user = system = 0
    for pid in pids:
        words = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(words) > 13:
            user, system = user + int(words[11]), system + int(words[12])
    return user, system


def rss_kib(pids):
    total = 0
    for pid in pids:
        for line in read(f"/proc/{pid}/status").splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total


def others_ns(own):
    """How long each thread of everybody else has run, by its number. The kernel's own threads are nobody's: they work for
    whoever is measured."""
    times = {}
    own = {str(pid) for pid in own}
    for pid in listing("/proc"):
        if not pid.isdigit() or pid in own or pid == "2":
            continue
        parent = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(parent) < 2 or parent[1] == "2":
            continue
        for task in listing(f"/proc/{pid}/task"):
            words = read(f"/proc/{pid}/task/{task}/schedstat").split()
            if words:
                times[task] = int(words[0])
    return times


def processors():
    """Seconds the machine's processors were idle, and seconds the host took. Idle time is exact where the tick stops
    when there is nothing to do; what is busy is the rest of wall time, since the counters of it are sampled."""
    words = [int(word) / TICK for word in read("/proc/stat").splitlines()[0].split()[1:]]
    idle, iowait, steal = words[3], words[4], words[7]
    return {"idle": idle + iowait, "steal": steal}


def busy_share(seconds):
    """How busy the machine is for a moment."""
    begin, at = processors(), time.monotonic()
    time.sleep(seconds)
    whole = os.cpu_count() * (time.monotonic() - at)
    return 1 - (processors()["idle"] - begin["idle"]) / whole


def output(*command, lines=3):
    """The first lines a command prints, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return "\n".join((done.stdout + done.stderr).strip().splitlines()[:lines])
    except (OSError, subprocess.TimeoutExpired):
        return ""


def facts():
    """What a reader must know of the machine to judge the figures."""
    cpuinfo = read("/proc/cpuinfo")
    field = lambda name: next(
        (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith(name)), "")
    settings = [
        "net/core/somaxconn", "net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem", "net/ipv4/tcp_tw_reuse",
        "net/ipv4/tcp_congestion_control", "net/ipv4/ip_local_port_range", "kernel/io_uring_disabled",
        "kernel/sched_autogroup_enabled",
    ]
    return {
        "kernel": platform.release(),
        "system": output("sh", "-c", ". /etc/os-release && echo $PRETTY_NAME"),
        "processor": field("model name"),
        "flags": field("flags"),
        "hypervisor": "hypervisor" in field("flags").split(),
        "processors": os.cpu_count(),
        "memory_kib": int(read("/proc/meminfo").split()[1]),
        "descriptors_max": int(read("/proc/self/limits").partition("Max open files")[2].split()[1]),
        "sysctl": {name: read(f"/proc/sys/{name}").strip() for name in settings},
        "load_average": read("/proc/loadavg").split()[:3],
    }
