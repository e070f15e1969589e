"""Changes over the Admin API under load: how long one takes to be served by every core, what it costs, who notices."""

import http.client
import json
import time

from lib import stats, tails
from lib.load import Load
from lib.processes import Failed
from lib.scenarios import ours

PURPOSE = "one route of many changes over the Admin API under load: when is it served, what does it cost"
MINUTES = 6
# How many routes, how many changes a second, and in how many rounds.
CASES = [(10_000, 50, 10), (100_000, 5, 4)]
SHARE, SECONDS = 0.3, 5
# Bodies that the changes have in turn, by chance.
BODIES = 1000
# How it is seen that both of two cores serve a change: connections that ask, changes, and the load beside them.
CONNECTIONS, CHANGES, QUIET_RATE = 24, 20, 1000
ANSWER_MS_MAX, CORE_SHARE_MAX = 100, 0.05
# The load's processor only: a thread that wakes beside the gateway would be one more occasion for its threads to change places.
WATCHED = ["--without-pauses", "1"]
# Of p99 over the quiet one, by routes.
TAIL_MAX = {10_000: 1.2, 100_000: 1.5}


class Admin:
    """A connection to the Admin API that is kept."""

    def __init__(self, target):
        ready = json.loads(target.ready.read_text())
        self.address = ready["admin"]
        self.key = (target.state_path() / "admin.key").read_text().strip()
        self.connection = http.client.HTTPConnection(self.address, timeout=60)
        self.headers = {"X-API-KEY": self.key, "Content-Type": "application/json"}

    def put(self, path, body, **headers):
        self.connection.request("PUT", f"/apisix/admin{path}", json.dumps(body), {**self.headers, **headers})
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status not in (200, 201, 202):
            raise Failed(f"PUT {path}: {answer.status} {said[:300]!r}")


class Asking:
    """Puts one body of many a few times a second, on what the load leaves over of its processor (SCHED_IDLE)."""

    def __init__(self, bench):
        self.load = Load(bench.tools, bench.directory, "asking", origins=0, gives_way=True)
        self.bodies = bench.directory / "bodies.jsonl"
        made = ({"uri": f"/changed/{number}/128", "upstream_id": "origin"} for number in range(BODIES))
        self.bodies.write_text("".join(f"{json.dumps(body)}\n" for body in made))

    def beside(self, url, a_second, seconds, take, *headers):
        """A sample while it asks, and what it was answered."""
        more = [part for header in headers for part in ("-H", header)]
        self.load.begin([url, "-X", "PUT", "--bodies-file", self.bodies, "-c", 1, "-r", a_second, *more, "-d", seconds, "-w", 0.2])
        taken = take([self.load.process.pid])
        answers = self.load.finish(seconds + 15)
        bad = {status: count for status, count in answers["statuses"].items() if not status.startswith("2")}
        if bad or answers["errors"] or not answers["answered"]:
            raise Failed(f"{url}: {bad or answers['errors'] or 'no answer'}")
        return taken, answers


def objects(routes, origin):
    upstream = {"id": "origin", "nodes": {f"127.0.0.1:{origin}": 1},
                "keepalive_pool": {"size": 128, "idle_timeout": 600, "requests": 1_000_000_000}}
    made = [{"id": f"r{number}", "uri": f"/route/{number}/128", "upstream_id": "origin"} for number in range(routes)]
    return {"upstreams": [upstream], "routes": made}


class Asker:
    """Connections that are kept, enough of them that each of two cores has some: one after the other is asked for a path."""

    def __init__(self, target):
        self.connections = [http.client.HTTPConnection("127.0.0.1", target.port, timeout=10) for _ in range(CONNECTIONS)]
        for connection in self.connections:
            connection.connect()

    def is_served(self, path):
        """Whether all that are asked serve it."""
        for connection in self.connections:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                return False
        return True


def by_every_core(bench, routes):
    """Milliseconds from each change until connections of both of two cores were served by it, while load goes on."""
    served_ms = []
    other = Load(bench.tools, bench.directory, "changes", origins=0)
    try:
        with ours.gateway(bench, f"changes-{routes}-two-cores", managed=True, cores="0-1") as target:
            admin = Admin(target)
            admin.put("/configs", objects(routes, bench.load.ports[0]), **{"X-Digest": "1"})
            asker = Asker(target)
            for core in (0, 1):
                if not ours.metric(target, f'ringway_connections_accepted_total{{core="{core}"}}'):
                    raise Failed(f"none of {CONNECTIONS} connections is of core {core}")
            other.begin([f"http://127.0.0.1:{target.port}/route/{routes - 1}/128", "-c", 64, "-r", QUIET_RATE, "-d", 60, "-w", 0.2])
            for number in range(CHANGES):
                began = time.monotonic()
                admin.put("/routes/r7", {"uri": f"/changed/{number}/128", "upstream_id": "origin"})
                while not asker.is_served(f"/changed/{number}/128"):
                    if time.monotonic() > began + 10:
                        raise Failed(f"change {number} is not served by every core")
                served_ms.append(1000 * (time.monotonic() - began))
    finally:
        other.end()
    return served_ms


def rounds(bench, target, asking, path, rate, a_second, count):
    """Samples in turns: nobody asks for changes, somebody asks the origin as often, somebody asks for them; and what was answered."""
    quiet, asked, changing, answers = [], [], [], []
    seconds = min(SECONDS, 3 * bench.options.seconds)
    take = lambda watched=(): ours.sample(bench, target, path, "-c", 64, "-r", f"{rate:.0f}", *WATCHED, seconds=seconds, watched=watched)
    admin = Admin(target)
    route, key = f"http://{admin.address}/apisix/admin/routes/r7", f"X-API-KEY: {admin.key}"
    idle = f"http://127.0.0.1:{bench.load.ports[0]}/128"
    for _ in range(count):
        quiet.append(take())
        whole = seconds + bench.options.warm_up
        asked.append(asking.beside(idle, a_second, whole, take)[0])
        taken, answered = asking.beside(route, a_second, whole, take, key)
        changing.append(taken)
        answers.append(answered)
    return {"rate": rate, "quiet": quiet, "asked": asked, "changing": changing, "answers": answers}


def measure(bench, say, asking, routes, a_second, count):
    with ours.gateway(bench, f"changes-{routes}", managed=True) as target:
        began = time.monotonic()
        Admin(target).put("/configs", objects(routes, bench.load.ports[0]), **{"X-Digest": "1"})
        say(f"  {routes} routes taken in {time.monotonic() - began:.1f} s")
        path = f"/route/{routes - 1}/128"
        rates = {"at 30 %": SHARE * ours.saturation(bench, target, path, "-c", 64), f"at {tails.STEADY:,}/s": tails.STEADY}
        return {at: rounds(bench, target, asking, path, rate, a_second, count) for at, rate in rates.items()}


def busy(taken):
    return taken["cpu_us"] * taken["load"]["rate"] / 1e6


def told(found, routes, a_second, at, served_ms):
    """A row, and what is asked of it."""
    quiet, asked, changing, answers = (found[kind] for kind in ("quiet", "asked", "changing", "answers"))
    cost = stats.median([busy(with_them) - busy(without) for with_them, without in zip(changing, quiet)])
    ratios = [tails.compared(changing, quiet, tails.p99), tails.compared(changing, quiet), tails.compared(changing, asked)]
    grown = (changing[-1]["rss_kib"] - quiet[0]["rss_kib"]) / 1024
    errors = sum(map(ours.errors, changing))
    middle, slowest = (of([report["latency_us"][name] / 1000 for report in answers]) for of, name in ((stats.median, "p50"), (max, "max")))
    count = sum(report["answered"] for report in answers)
    row = [f"{routes:,}", f"{found['rate']:.0f}", a_second, count, f"{middle:.1f}", f"{slowest:.1f}", f"{max(served_ms):.1f}",
           f"{100 * cost:.1f} %", tails.strain(changing), tails.cells(quiet)[1], *map(ours.shown, ratios), f"{grown:+.1f}", errors]
    checks = [
        (f"{routes:,} routes, {at}: slowest answer in ms", slowest, "at most", ANSWER_MS_MAX),
        *tails.checks(f"{routes:,} routes, {at}: p99 over quiet", changing, quiet, TAIL_MAX[routes]),
        (f"{routes:,} routes, {at}: errors", errors, "at most", 0),
    ]
    if routes == CASES[0][0]:
        checks.append((f"{routes:,} routes, {at}: of a core", cost, "at most", CORE_SHARE_MAX))
    return row, checks


def run(bench, say):
    rows, checks, samples = [], [], {}
    asking = Asking(bench)
    try:
        for routes, a_second, count in CASES:
            samples[routes] = {**measure(bench, say, asking, routes, a_second, count), "served_ms": by_every_core(bench, routes)}
    finally:
        asking.load.end()
    for routes, a_second, _ in CASES:
        found = dict(samples[routes])
        served = found.pop("served_ms")
        say(f"  {routes} routes: a change is served by both of two cores within {max(served):.1f} ms")
        checks.append((f"{routes:,} routes: slowest until both of two cores serve it, in ms", max(served), "at most", ANSWER_MS_MAX))
        for at, taken in found.items():
            row, asked_of_it = told(taken, routes, a_second, at, served)
            rows.append(row)
            checks += asked_of_it
    return {
        "columns": ["routes", "req/s", "changes/s", "changes", "answer ms", "slowest", "slowest by two cores", "of a core", tails.STRAIN,
                    "p99 quiet", "over quiet, of all [95 % CI]",
                    "over quiet, outside of pauses", "over changing nothing, outside", "RSS MiB more", "errors"],
        "rows": rows, "checks": checks, "samples": samples,
        "notes": ["An answer to a change comes when it is on disk and every core serves it; that it is so is seen by asking on connections of both of two "
                  f"cores, {QUIET_RATE} requests a second beside them.",
                  "What asks for changes shares the other processor with the load and the origin. It has what those leave over (SCHED_IDLE), "
                  "so an answer has its own waiting in it. *Changing nothing* is the same client asking the origin as often. p99 quiet is outside of pauses.",
                  tails.STRAIN_NOTE, tails.NOTE],
    }
