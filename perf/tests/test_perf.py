"""What perf/ reckons by itself: `python3 -m unittest discover perf/tests`."""

import json
import random
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from types import SimpleNamespace

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib import blocks, build, compare, plan, profile, report, stats, tails, targets  # noqa: E402
from lib.blocks import Case  # noqa: E402
from lib.processes import Failed  # noqa: E402
from lib.scenarios import alone, compared, p17_overload  # noqa: E402

KERNEL, BINARY, LIBC = "[kernel.kallsyms]", "/usr/bin/ringway", "/usr/lib/x86_64-linux-gnu/libc.so.6"


def sample(cpu_us, p99=1000.0, share=0.9, **more):
    """Half of the tail is the host's pauses."""
    return {"cpu_us": cpu_us, "load": {"latency_us": {"p99": p99}, "outside_pauses_us": {"p99": p99 / 2, "share": share}}, **more}


class Profile(unittest.TestCase):
    def check(self, symbol, where, *expected):
        self.assertEqual(profile.part_of(symbol, where), expected, symbol)

    def test_what_the_kernel_does_is_told_apart(self):
        for symbol, part in [
            ("tcp_sendmsg_locked", "tcp send"), ("__tcp_transmit_skb", "tcp send"), ("ip_finish_output2", "tcp send"),
            ("__dev_queue_xmit", "tcp send"), ("tcp_rcv_established", "tcp receive"), ("tcp_ack", "tcp receive"),
            ("__inet_lookup_established", "tcp receive"), ("ip_rcv_core", "tcp receive"), ("bbr_main", "tcp receive"),
            ("io_submit_sqes", "io_uring"), ("__io_run_local_work", "io_uring"), ("io_schedule", "scheduling"), ("ep_poll_callback", "epoll"),
            ("__schedule", "scheduling"), ("try_to_wake_up", "scheduling"), ("_raw_spin_unlock_irqrestore", "scheduling"),
            ("_copy_from_iter", "copies"), ("rep_movs_alternative", "copies"), ("kmem_cache_free", "buffers"), ("skb_release_data", "buffers"),
            ("__alloc_skb", "buffers"), ("inet_csk_accept", "connections"), ("tcp_v4_connect", "connections"), ("do_syscall_64", "calls"),
            ("vfs_writev", "files"), ("nft_do_chain", "firewall"), ("something_new", "other"),
        ]:
            self.check(symbol, KERNEL, "kernel", part)

    def test_what_is_ours_is_told_by_its_room(self):
        for symbol, part in [
            ("ringway::proto::h1::parse::request", "proto"), ("ringway::proto::h2::conversation::Conversation::take", "h2"),
            ("ringway::edge::h2::serve::{{closure}}", "h2"), ("ringway::edge::pipeline::Run::serve::{{closure}}", "edge"),
            ("ringway::router::tree::find", "router"), ("<ringway::plugins::key_auth::KeyAuth as ringway::plugin::Hooks>::access", "plugins"),
            ("ringway::plugin::chain::Chain::gate", "plugins"), ("ringway::runtime::pool::Pool::lease", "runtime"),
            ("ringway::runtime::tls::session::Session::take", "tls"), ("monoio::task::raw::poll", "runtime"),
            ("<monoio::driver::op::Op<T> as core::future::future::Future>::poll", "runtime"), ("rustls::conn::deframe", "tls"),
            ("core::ptr::drop_in_place<ringway::edge::h1::Connection>", "edge"), ("core::iter::traits::iterator::Iterator::fold", "std"),
            ("<core::result::Result<T,E> as core::ops::try_trait::Try>::branch", "std"), ("aes_gcm_enc_update_vaes_avx512", "tls"),
            ("aws_lc_0_32_2_EVP_AEAD_CTX_seal", "tls"), ("_mi_page_malloc", "allocator"), ("mi_free", "allocator"),
            ("hashbrown::raw::RawTable<T,A>::find", "tables"), ("main", "other"),
        ]:
            self.check(symbol, BINARY, "user", part)
        self.check("__memmove_avx512_unaligned_erms", LIBC, "user", "memory")
        self.check("malloc", LIBC, "user", "allocator")
        self.check("[unknown]", "[vdso]", "user", "clock")

    def test_shares_are_of_all_samples(self):
        text = f"""
core-0          4711  ffffffff81a1b2c3 tcp_ack ({KERNEL})
core-0          4711  ffffffff81a1b2c3 tcp_ack ({KERNEL})
core-0          4711      55d0c0ffee00 <ringway::edge::h1::Connection as core::fmt::Debug>::fmt::h0123456789abcdef ({BINARY})
tokio worker    4712      7f0000000000 [unknown] (/usr/lib/x86_64-linux-gnu/libc.so.6 (deleted))
# a line that is no sample
"""
        folded = profile.fold(profile.read(text))
        self.assertEqual(folded["samples"], 4)
        self.assertEqual(dict(folded["modes"]), {"kernel": 0.5, "user": 0.5})
        self.assertEqual(folded["symbols"][0], (("tcp_ack", "kernel", "tcp receive"), 0.5))
        self.assertIn((("<ringway::edge::h1::Connection as core::fmt::Debug>::fmt", "user", "edge"), 0.25), folded["symbols"])
        self.assertEqual(dict(folded["threads"]), {"core-0": 0.75, "tokio worker": 0.25})
        heading, columns, rows = profile.tables(folded, 20.0)[1]
        self.assertEqual((heading, rows[0]), ("Parts", ["kernel", "tcp receive", "50.0%", "10.00"]))


class Compare(unittest.TestCase):
    def run_of(self, ratios, name="saturated", rate=None):
        blocks = [{"ringway": sample(10.0 * ratio, 700.0 * ratio), "nginx": sample(10.0, 700.0)} for ratio in ratios]
        return {"cases": [{"scenario": "P1", "name": name, "rate": rate, "blocks": blocks}]}

    def compared(self, first, second):
        with tempfile.TemporaryDirectory() as folder:
            folders = []
            for name, run in (("a", first), ("b", second)):
                (Path(folder) / name / "raw").mkdir(parents=True)
                (Path(folder) / name / "raw" / "samples.json").write_text(json.dumps(run))
                folders.append(Path(folder) / name)
            return compare.compare(*folders)

    def test_intervals_that_overlap_are_the_same_and_others_differ(self):
        near, beside, far = [0.8, 0.81, 0.82, 0.83, 0.84, 0.86], [0.85, 0.86, 0.87, 0.87, 0.88, 0.9], [1.0, 1.01, 1.02, 1.03, 1.04, 1.05]
        self.assertEqual(self.compared(self.run_of(near), self.run_of(beside))[1:], (1, 0))
        lines, judged, differing = self.compared(self.run_of(near), self.run_of(far))
        self.assertEqual((judged, differing, lines[0][-1]), (1, 1, "DIFFERS"))
        self.assertEqual(lines[0][:3], ["P1 saturated", "cpu us/req", "nginx"])

    def test_what_is_in_one_only_or_has_few_pairs_is_told_and_not_judged(self):
        lines, judged, differing = self.compared(self.run_of([0.8] * 6), self.run_of([0.8] * 6, name="at 5,000/s", rate=5000))
        self.assertEqual(([line[-1] for line in lines], judged, differing), (["in one only"] * 2, 0, 0))
        lines, judged, _ = self.compared(self.run_of([0.8] * 5), self.run_of([1.2] * 5))
        self.assertEqual((lines[0][-1], judged), ("too few pairs", 0))

    def test_the_tail_is_compared_at_a_share_of_saturation(self):
        run = self.run_of([0.8] * 6, name="at 60 % of own saturation")
        self.assertEqual([line[1] for line in self.compared(run, run)[0]], ["p99", "p99 outside of pauses"])

    def test_a_folder_without_samples_is_told(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaisesRegex(Failed, "expected the samples of a run"):
            compare.compare(folder, folder)


class Intervals(unittest.TestCase):
    def test_an_interval_has_the_median_as_often_as_it_says(self):
        dice = random.Random(20)
        for count in (6, 7, 9, 12, 20):
            drawn = [stats.interval([dice.lognormvariate(0, 1) for _ in range(count)]) for _ in range(2000)]
            found = sum(low <= 1 <= high for low, high in drawn) / len(drawn)
            # Three standard deviations of 2000 tries.
            self.assertGreater(found, stats.SURE - 0.015, count)

    def test_few_values_give_all_of_them_and_many_leave_the_outermost_out(self):
        self.assertEqual(stats.interval([3, 1, 2]), (1, 3))
        self.assertEqual(stats.interval(list(range(6))), (0, 5))
        self.assertEqual(stats.interval(list(range(9))), (1, 7))
        self.assertEqual(stats.interval([]), (None, None))
        self.assertGreaterEqual(stats.coverage(stats.PAIRS_MIN, 1), stats.SURE)
        self.assertLess(stats.coverage(stats.PAIRS_MIN - 1, 1), stats.SURE)


class Blocks(unittest.TestCase):
    def test_a_case_lacks_pairs_until_every_target_has_enough_or_as_many_as_were_asked_for(self):
        case, targets = Case("P1", "saturated", "/128", []), [SimpleNamespace(name="ringway"), SimpleNamespace(name="nginx")]
        case.blocks = [{"ringway": 1, "nginx": 1}] * 5 + [{"ringway": 1}]
        self.assertTrue(blocks.lacks_pairs(case, targets, SimpleNamespace(blocks=6)))
        self.assertFalse(blocks.lacks_pairs(case, targets, SimpleNamespace(blocks=3)))
        case.blocks.append({"ringway": 1, "nginx": 1})
        self.assertFalse(blocks.lacks_pairs(case, targets, SimpleNamespace(blocks=6)))


class Goals(unittest.TestCase):
    def test_a_goal_of_the_tail_is_of_p99_with_and_without_pauses(self):
        case = Case("P1", "at 60 % of own saturation", "/128", [], share=0.6, tail_goals={"nginx": 1.0})
        case.blocks = [{"ringway": sample(20.0, 900.0), "nginx": sample(10.0, 1000.0)}] * 6
        self.assertEqual([(goal["case"], goal["median"], goal["verdict"]) for goal in report.goals(case)], [
            ("P1 at 60 % of own saturation, p99", 0.9, "holds"), ("P1 at 60 % of own saturation, p99 outside of pauses", 0.9, "holds")])

    def test_where_pauses_touch_most_requests_nothing_is_said_of_the_rest(self):
        taken, disturbed = sample(20.0, 900.0), sample(20.0, 900.0, share=0.4)
        self.assertEqual((tails.outside(taken), tails.outside(disturbed), tails.p99(disturbed)), (450.0, None, 900.0))
        self.assertEqual(tails.cells([taken, disturbed]), ["900", "450", "65%"])
        self.assertEqual(tails.compared([taken, disturbed], [taken, taken])["pairs"], 1)

    def test_a_tail_is_checked_of_all_requests_and_of_those_outside_of_pauses(self):
        quiet, beside, disturbed = [sample(20.0, 100.0)], [sample(20.0, 120.0)], [sample(20.0, 120.0, share=0.4)]
        self.assertEqual(tails.checks("p99", beside, quiet, 1.1),
                         [("p99, of all", 1.2, "at most", 1.1), ("p99, outside of pauses", 1.2, "at most", 1.1)])
        self.assertEqual([check[1] for check in tails.checks("p99", disturbed, quiet, 1.1)], [1.2, None])

    def test_pauses_are_watched_where_a_tail_is_asked_about_and_requests_are_due(self):
        case = Case("P1", "at 60 % of own saturation", "/128", [], share=0.6, tail_goals={"nginx": 1.0})
        self.assertIn("--without-pauses", case.load_arguments(80, 1000))
        self.assertNotIn("--without-pauses", case.load_arguments(80, None))

    def test_the_tail_at_60_percent_is_in_the_full_suite(self):
        case, = [case for case in compared.wanted("full", None) if case.share]
        self.assertEqual((case.tail_goals["nginx"], case.tail_goals["haproxy"]), (1.0, 1.0))


class Build(unittest.TestCase):
    def test_what_is_built_beside_the_rest_is_given_to_it(self):
        with build.beside(lambda: build.run(lambda _: None, ["true"], 1) or "built") as made:
            self.assertEqual(made.result(), "built")

    def test_a_build_that_fails_says_what_it_said(self):
        with self.assertRaisesRegex(Failed, "no such thing"):
            build.run(lambda _: None, ["sh", "-c", "echo no such thing >&2; exit 1"], 1)

    def test_what_is_built_beside_ends_with_the_rest(self):
        started = threading.Event()
        with self.assertRaises(KeyboardInterrupt):
            with build.beside(lambda: build.run(lambda _: started.set(), ["sleep", "1000"], 60)):
                started.wait()
                while not build.RUNNING:
                    pass
                raise KeyboardInterrupt
        self.assertFalse(build.RUNNING)


class Plan(unittest.TestCase):
    def test_each_suite_fits_into_its_time_with_builds(self):
        for name, suite in plan.SUITES.items():
            side_by_side, others = plan.minutes(name)
            self.assertLessEqual(side_by_side + others, suite.minutes, f"{name}: no case is left out for want of time")
            self.assertLessEqual(suite.minutes + plan.BUILDS[name], plan.WHOLE[name], name)

    def test_targets_are_those_that_can_do_what_is_asked(self):
        self.assertEqual(targets.names(["nginx", "pingora"], "stream"), ["relay", "ringway", "again", "nginx"])
        self.assertEqual(targets.names(["nginx"], "guarded"), ["relay", "ringway", "again", "epoll", "unguarded", "nginx"])
        self.assertEqual(targets.names([], "rsa"), ["ringway", "again"])


class Alone(unittest.TestCase):
    def test_each_check_has_its_line_even_where_no_sample_stands(self):
        notes = alone.table("workers", [], [], checks=[("a", 1.0, "at most", 1.05), ("b", None, "at most", 1.05), ("c", 0.5, "at least", 0.95)])["notes"]
        self.assertEqual([note.rpartition(": ")[2] for note in notes],
                         ["holds", "no verdict, too few samples stand; goal at most 1.05", "does not hold"])


class Overload(unittest.TestCase):
    def of(self, busy, late_us):
        return {"overload": [{"busy": busy, "load": {"late_us": {"p99": late_us}}}]}

    def test_overload_is_of_the_gateway_and_not_of_the_load(self):
        self.assertEqual(p17_overload.verdict(self.of(0.97, 900.0)), "yes")
        self.assertEqual(p17_overload.verdict(self.of(0.42, 900.0)), "no: 42% busy")
        self.assertEqual(p17_overload.verdict(self.of(0.97, 120_000.0)), "no: load 120 ms late")


if __name__ == "__main__":
    unittest.main()
