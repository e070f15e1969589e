"""P16: whether a limit admits what it says and never more, on whatever core the connections land."""

from lib.scenarios import ours

PURPOSE = "a limit shared by two cores, asked for twice as much: admitted over allowed"
MINUTES = 1
COUNT, WINDOW, WINDOWS = 2000, 2, 4
LEAST, MOST = 0.98, 1.0

RESOURCES = """\
routes:
  - id: limited
    uri: /*
    plugins:
      limit-count: {{count: {count}, time_window: {window}, key: "{name}", key_type: constant, rejected_code: 429}}
    upstream:
      nodes: {{"127.0.0.1:@ORIGIN@": 1}}
      keepalive_pool: {{size: 128, idle_timeout: 600, requests: 1000000000}}
"""


def run(bench, say):
    rows, checks, samples = [], [], {}
    # The window begins with the first request; the last one ends a little after we do.
    seconds = WINDOW * WINDOWS - 0.1
    for connections in (1, 2, 64):
        for offered in (2.0, 10.0):
            rate = COUNT / WINDOW * offered
            resources = RESOURCES.format(count=COUNT, window=WINDOW, name=f"all-{connections}-{offered:.0f}")
            with ours.gateway(bench, "limit", resources, cores="0-1") as target:
                taken = ours.sample(bench, target, "/128", "-c", connections, "-r", f"{rate:.0f}",
                                    seconds=seconds, warm_up=0)
            report = taken["load"]
            admitted = sum(count for status, count in report["statuses"].items() if status.startswith("2"))
            ratio = admitted / (COUNT * WINDOWS)
            name = f"{connections} connections, offered {offered:g} x"
            say(f"  {name}: {ratio:.4f}")
            rows.append([name, report["offered"], admitted, COUNT * WINDOWS, f"{ratio:.4f}"])
            samples[name] = taken
            checks += [(f"{name}, admitted", ratio, "at least", LEAST), (f"{name}, admitted", ratio, "at most", MOST)]
    return {"columns": ["", "offered", "admitted", "allowed", "admitted over allowed"], "rows": rows,
            "checks": checks, "samples": samples}
