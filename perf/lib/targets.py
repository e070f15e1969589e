"""The gateways under test: which there are, how each is configured and started.

Their configurations are templates in perf/peers/. `@NAME@` is replaced; sections between `# when NAME ...` and `# end` stay
only where one of the names is among the words of the variant, those behind `# unless NAME ...` where none is.
"""

import json
import re
import shutil
import time
from pathlib import Path

from lib import certificate
from lib.processes import Failed, Process, free_port

PEERS = Path(__file__).resolve().parent.parent / "peers"
PROCESSOR = 0

# The words of each variant. What is not said otherwise is HTTP/1.1 in clear on both sides.
VARIANTS = {
    "guarded": ("guarded",),             # keys, limits, metrics, access log
    "plain": ("plain",),
    "tls": ("plain", "tls"),
    "rsa": ("plain", "tls", "rsa"),      # the same with a certificate of RSA
    "h2": ("plain", "h2"),               # HTTP/2 with clients
    "grpc": ("plain", "h2", "grpc"),     # and with the origin
    "websocket": ("plain", "websocket"),
    "large": ("plain", "large"),         # big bodies
    "stream": ("plain", "stream"),       # bytes of TCP
    "limited": ("plain", "limited"),     # so many requests a second of a client
}
# What is let in of a client where that is limited: a second, at once beyond that where such a thing is known, and in 50 ms
# where tokens are filled in by so many.
LIMITS = {"RATE": 1000, "BURST": 100, "FILL": 50}
# Where bytes are not passed on as they are the relay is no floor, nor where it can not be asked to look at each message: it
# copies many calls of gRPC at once.
WITHOUT_FLOOR = {"tls", "rsa", "h2", "grpc"}
# Where our other driver stands beside the one in use. Elsewhere the time is better spent on more blocks.
WITH_EPOLL = {"guarded", "plain", "large", "alone"}
# Whom nobody here has taught what a variant needs.
UNABLE = {"pingora": {"stream"}}

# What P2 sends; without it nothing is let through.
KEY_HEADER = "apikey: key-of-alice"


def render(template, variants, values):
    """A template of perf/peers/ for a variant."""
    lines, keep = [], True
    for line in (PEERS / template).read_text().splitlines():
        mark = re.fullmatch(r"\s*# (when|unless|end)((?: \w+)*)", line)
        if mark and (mark.group(1) == "end") == (not mark.group(2)):
            keep = mark.group(1) == "end" or (mark.group(1) == "when") == bool(
                set(mark.group(2).split()) & set(variants))
        elif keep:
            lines.append(line)
    text = "\n".join(lines) + "\n"
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    if left := re.search(r"@[A-Z]+@", text):
        raise Failed(f"{template}: nothing is given for {left.group()}")
    return text


class Target:
    """One gateway: started once for all runs of a variant."""

    def __init__(self, name, binary, directory, processors=frozenset({PROCESSOR})):
        self.name, self.binary, self.directory = name, binary, directory
        self.processors = set(processors)
        self.port = self.other = self.process = None
        self.variants = ()

    def write(self, file, template, **values):
        path = self.directory / file
        # The certificate is shared by all of a run, whose folders lie side by side.
        values = {**LIMITS, "PORT": self.port, "OTHER": self.other, "DIRECTORY": self.directory, "NAME": self.name,
                  **self.certificate(), **values}
        path.write_text(render(template, self.variants, values))
        return path

    def certificate(self):
        files = certificate.RSA if "rsa" in self.variants else certificate.ECDSA
        return certificate.values(self.directory.parent, files)

    def command(self, origin):
        raise NotImplementedError

    def start(self, variants, origin):
        """Listens on a new port and forwards to the origin's. With TLS on that port, another is in clear."""
        self.variants, self.port, self.other = tuple(variants), free_port(), free_port()
        command = [str(word) for word in self.command(origin)]
        self.process = Process(self.name, command, self.processors, self.directory / f"{self.name}.log")
        self.process.wait_for_port(self.port)

    def end(self):
        if self.process:
            self.process.end()
            self.process = None
        for log in self.directory.glob("*.access.log"):
            log.unlink()

    def pids(self):
        return self.process.pids() if self.process else []

    def empty_logs(self):
        """Records of requests are not read, and a long run would fill the disk."""
        for log in (*self.directory.glob("*.access.log"), self.directory / f"{self.name}.log"):
            if log.exists() and log.stat().st_size > 1 << 26:
                with open(log, "r+b") as file:
                    file.truncate(0)


class Relay(Target):
    """The floor."""

    def command(self, origin):
        return [self.binary, f"127.0.0.1:{self.port}", f"127.0.0.1:{origin}"]


class Ringway(Target):
    """Ours. `resources` takes the place of the template's: a text with @ORIGIN@. `managed`: objects come over the Admin API."""

    def __init__(self, name, binary, directory, driver="auto", cores="0", resources=None, only=None, managed=False):
        super().__init__(name, binary, directory, {0, 1} if cores == "0-1" else {PROCESSOR})
        self.driver, self.cores, self.resources, self.only = driver, cores, resources, only
        self.managed, self.started_in = managed, None

    def resources_path(self):
        return self.directory / f"{self.name}.resources.yaml"

    def state_path(self):
        return self.directory / f"{self.name}.state"

    def command(self, origin):
        # A target may be kept plain beside guarded ones, to be compared with.
        self.variants = self.only or self.variants
        self.metrics = free_port()
        config = self.write(
            f"{self.name}.config.yaml", "ringway.config.yaml",
            CORES=self.cores, METRICS=self.metrics, STATUS=free_port())
        if self.managed:
            shutil.rmtree(self.state_path(), ignore_errors=True)
        elif self.resources:
            self.resources_path().write_text(self.resources.replace("@ORIGIN@", str(origin)))
        else:
            self.write(f"{self.name}.resources.yaml", "ringway.resources.yaml", ORIGIN=origin)
        self.ready = self.directory / f"{self.name}.ready.json"
        self.ready.unlink(missing_ok=True)
        objects = [] if self.managed else ["--resources", self.resources_path()]
        return [self.binary, "run", "-c", config, *objects, "--driver", self.driver, "--ready-file", self.ready]

    def start(self, variants, origin):
        begin = time.monotonic()
        super().start(variants, origin)
        while not self.ready.exists():
            if not self.process.is_alive() or time.monotonic() > begin + 30:
                raise Failed(f"{self.name} is not ready:\n{self.process.last_words()}")
            time.sleep(0.005)
        self.started_in = time.monotonic() - begin

    def driver_in_use(self):
        return json.loads(self.ready.read_text()).get("driver")


class Nginx(Target):
    def command(self, origin):
        template = "nginx.stream.conf" if "stream" in self.variants else "nginx.conf"
        path = self.write("nginx.conf", template, ORIGIN=origin)
        return [self.binary, "-e", self.directory / "nginx.error.log", "-c", path]


class Haproxy(Target):
    def command(self, origin):
        self.write("haproxy.keys", "haproxy.keys")
        template = "haproxy.stream.cfg" if "stream" in self.variants else "haproxy.cfg"
        path = self.write("haproxy.cfg", template, ORIGIN=origin)
        return [self.binary, "-db", "-f", path]


class Envoy(Target):
    def command(self, origin):
        template = "envoy.stream.yaml" if "stream" in self.variants else "envoy.yaml"
        path = self.write("envoy.yaml", template, ORIGIN=origin)
        return [self.binary, "-c", path, "--concurrency", 1, "--disable-hot-restart", "-l", "error"]


class Pingora(Target):
    def command(self, origin):
        at, origin = f"127.0.0.1:{self.port}", f"127.0.0.1:{origin}"
        if "tls" in self.variants:
            files = self.certificate()
            return [self.binary, f"127.0.0.1:{self.other}", origin, "--tls", at,
                    files["CERTIFICATE"], files["CERTIFICATEKEY"]]
        words = {"guarded": ["--log", self.directory / "pingora.access.log"], "h2": ["--h2c"], "grpc": ["--grpc"]}
        return [self.binary, at, origin, *(word for name in words if name in self.variants for word in words[name])]


KINDS = {"nginx": Nginx, "haproxy": Haproxy, "envoy": Envoy, "pingora": Pingora}
# How a target is called in tables.
SHOWN = {"relay": "raw relay", "ringway": "ours", "again": "ours again (A/A)", "epoll": "ours, epoll driver",
         "unguarded": "ours without plugins", "direct": "direct"}


def names(against, variant):
    """Whose turn it is in a comparison, in the order they are shown."""
    found = [] if variant in WITHOUT_FLOOR else ["relay"]
    found += ["ringway", "again"]
    if variant in WITH_EPOLL:
        found.append("epoll")
    if variant == "guarded":
        found.append("unguarded")
    return found + [name for name in against if variant not in UNABLE.get(name, ())]


def all_of(binaries, against, directory, variant):
    """The targets of a comparison."""
    folder = directory / variant
    folder.mkdir(parents=True, exist_ok=True)
    ours = binaries["ringway"]
    own = {"epoll": {"driver": "epoll"}, "unguarded": {"only": ("plain",)}}
    made = []
    for name in names(against, variant):
        if name == "relay":
            made.append(Relay(name, binaries[name], folder))
        elif name in KINDS:
            made.append(KINDS[name](name, binaries[name], folder))
        else:
            made.append(Ringway(name, ours, folder, **own.get(name, {})))
    return made
