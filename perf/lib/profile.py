"""Where a gateway's time goes: samples of `perf record`, folded into parts.

The samples are of the processor's clock, which works where the machine counts nothing else. It can not fire while interrupts are off, so what the
kernel does then is seen where they are allowed again, such as in `_raw_spin_unlock_irqrestore`.
"""

import re
import subprocess
from collections import Counter
from pathlib import Path

from lib.processes import Failed

FREQUENCY = 3999
TOP = 25

# Of the kernel, by the beginning of a symbol; the first that fits counts.
KERNEL = [
    ("copies", r"_?copy_|copyin|copyout|rep_movs|__?memcpy|memcpy|memset|clear_page|skb_copy|__skb_datagram_iter|simple_copy|csum_"),
    ("io_uring", r"_*io_(?!schedule|apic)|_*io_uring|_*x64_sys_io_uring|req_|kiocb"),
    ("epoll", r"_*ep_|.*epoll|eventpoll"),
    ("connections", r"tcp_v4_connect|.*accept|tcp_conn_request|tcp_v4_syn|tcp_v4_conn|tcp_create_openreq|.*_hash_connect|.*reqsk|inet_csk_get|"
                    r"inet_csk_destroy|inet_unhash|_*inet_hash|_*inet_bind|tcp_close|_*tcp_close|tcp_fin|.*time_wait|.*timewait|tcp_init|tcp_done|inet_create|"
                    r"sock_alloc|sk_alloc|sk_prot_alloc|_*sk_free|_*sk_destruct|sk_clone|inet_release|_*sock_release|sock_close|tcp_shutdown|"
                    r"alloc_file|d_alloc|_*dentry|iput|evict|destroy_inode|alloc_inode|alloc_fd|close_fd|task_work"),
    ("tcp send", r"tcp_(send|write|push|transmit|stream_alloc|event_new|rate_skb_sent|chrono|tso|skb_entail|small_queue|nagle|schedule_loss|mss|"
                 r"established_options|options_write|wfree|release_cb|cwnd|current_mss|update_skb|tx_timestamp|rearm)|"
                 r"_*tcp_(transmit|push|send|v4_send)|tcp_v4_send|skb_entail|_*ip_(queue_xmit|local_out|output|finish|copy_addrs)|"
                 r"ip_(queue|local_out|output|finish)|"
                 r"_*dev_queue_xmit|dev_hard_start|loopback_xmit|validate_xmit|netif_skb_features|netif_rx|_*netif_rx|enqueue_to_backlog|"
                 r"inet_send|sock_(send|wfree)|_*sys_send|_*sock_send|sk_stream|neigh_|skb_network|dst_|ipv4_dst|ipv4_mtu|sock_wfree|eth_|"
                 r"_*skb_(tstamp|set)|sk_setup_caps|import_iovec|sendmsg|_*sys_sendmsg|___sys_sendmsg"),
    ("tcp receive", r"_*tcp_|_*ip_|_*inet_|ipv4_|_*netif_receive|process_backlog|_*napi|net_rx|sock_def_readable|sock_(recv|read|rfree|poll)|"
                    r"_*sys_recv|_*sock_recv|_*skb_(datagram|try_recv|recv)|raw_local|udp_|bictcp|cubictcp|bbr_|sk_filter|sk_reset_timer|mod_timer|"
                    r"_*mod_timer|lock_sock|release_sock|_*release_sock|sk_|rb_|recvmsg"),
    ("buffers", r"_*kmem_|_*kmalloc|_*kfree|kfree|_*slab|.*skb|skb|_*alloc_(pages|skb|frozen)|page_frag|_*free_(page|frozen)|get_page|free_unref|"
                r"put_page|refill_|mod_objcg|obj_cgroup|_*memcg|.*mem_cgroup|try_charge|rmqueue|_*build_skb|drain_stock"),
    ("scheduling", r"io_schedule|_*schedule|finish_task|prepare_task|_*switch|switch_|_*wake|wake_|try_to_wake|ttwu|autoremove|default_wake|pick_|enqueue_|"
                   r"dequeue_|update_(curr|load|rq|se|cfs|min|entity)|select_|set_next|put_prev|reweight|place_entity|check_preempt|resched|"
                   r"_raw_spin|native_queued|hrtimer|_*hrtimer|tick_|ktime|sched_|native_sched|psi_|cpuacct|__calc_delta|avg_vruntime|native_write_msr|"
                   r"sysvec|asm_sysvec|pv_|kvm_|read_tsc|x2apic|_*smp|rcu|_*rcu|timer|run_timer|_*run_timer|_*get_next_timer|wakeup|cpuidle|default_idle"),
    ("files", r"_*vfs_|ksys_(read|write)|.*writev|ext4|_*ext4|xfs|_*xfs|ovl_|btrfs|jbd2|generic_(perform|write|file)|iomap|filemap|_*folio|fault_in|"
              r"balance_dirty|rw_verify|file_(update|remove)|_*mark_inode|pipe_"),
    ("firewall", r"nf_|nft_|ipt_|xt_|bpf|_*cgroup_bpf|hook"),
    ("calls", r"entry_|_*do_syscall|do_syscall|_*x64_sys|x64_sys|syscall|exit_to|irqentry|_*fget|_*fput|fput|_*fdget|security_|apparmor|aa_|"
              r"do_softirq|_*do_softirq|handle_softirqs|irq_|_*irq|_*local_bh|_*check_object|_*audit|fs_|ksys_|srso|retbleed|zen_"),
]
# Of our own, and of what it is made of, by what a symbol names.
MEMORY = re.compile(r"^_*(mem(cpy|move|set|cmp|chr|rchr)|bcmp|str(len|chr)|wmem)")
ALLOCATOR = re.compile(r"^(_*mi_|_*(malloc|calloc|realloc|free|posix_memalign|cfree)\b|_*rust_(alloc|dealloc|realloc))|mimalloc")
CIPHERS = re.compile(r"^_*(aws_lc|aes|gcm|aesni|vaes|gf?hash|ghash|chacha|poly1305|sha\d|sha_|bn_|BN_|ec_|ecp|EC_|p256|p384|x25519|fiat|curve25519|"
                     r"rsa|RSA|EVP|evp|CRYPTO|rsaz|mul_mont|HMAC|hmac|hkdf|ecdsa|ECDSA)", re.ASCII)
CRATES = re.compile(r"(?<![\w:])(ringway|monoio|io_uring|mio|rustls(?:_\w+)?|aws_lc_rs|aws_lc_sys|webpki|h2|loona_hpack|flate2|matchit|hashbrown|ahash|bytes|"
                    r"crossbeam\w*|serde\w*|regex\w*|memchr|httparse|fancy_regex|pcre2)::(\w+)?(?:::(\w+))?")
ROOMS = {"plugin": "plugins"}
OF_CRATES = {"monoio": "runtime", "io_uring": "runtime", "mio": "runtime", "rustls": "tls", "aws_lc_rs": "tls", "aws_lc_sys": "tls",
             "webpki": "tls", "h2": "h2", "loona_hpack": "h2", "hashbrown": "tables", "ahash": "tables", "memchr": "memory", "httparse": "proto"}


def of_kernel(symbol):
    for part, pattern in KERNEL:
        if re.match(pattern, symbol):
            return part
    return "other"


def of_user(symbol, where):
    """The room of the gateway, or what else it is."""
    if "vdso" in where:
        return "clock"
    if MEMORY.match(symbol):
        return "memory"
    if ALLOCATOR.search(symbol):
        return "allocator"
    # What is generic belongs to the first that it is made for, the standard library being everybody's.
    if found := CRATES.search(symbol):
        crate, room, below = found.groups()
        if crate != "ringway":
            return OF_CRATES.get(crate.partition("_")[0] if crate.startswith("rustls") else crate, "other")
        if below in ("h2", "tls"):
            return below
        return ROOMS.get(room, room) or "other"
    if CIPHERS.match(symbol):
        return "tls"
    return "std" if re.match(r"<?(core|alloc|std)\b", symbol) else "other"


def part_of(symbol, where):
    """(kernel or user, part) of a sample."""
    if "kernel" in where or where.endswith(".ko") or where.startswith("[k"):
        return "kernel", of_kernel(symbol)
    return "user", of_user(symbol, where)


LINE = re.compile(r"^\s*(?P<thread>.+?)\s+(?P<tid>\d+)\s+(?P<ip>[0-9a-f]+)\s+(?P<symbol>.*?)\s+\((?P<where>[^()]*(?:\([^()]*\))?)\)\s*$")


def read(text):
    """Samples as `perf script -F comm,tid,ip,sym,dso` prints them: how many there are of each thread, symbol and place."""
    samples = Counter()
    for line in text.splitlines():
        if found := LINE.match(line):
            symbol = re.sub(r"::h[0-9a-f]{16}$", "", found["symbol"]) or "[unknown]"
            samples[(found["thread"], symbol, found["where"])] += 1
    return samples


def fold(samples):
    """Shares of the whole: by mode, by part, by symbol, by thread."""
    whole = sum(samples.values()) or 1
    modes, parts, symbols, threads = Counter(), Counter(), Counter(), Counter()
    for (thread, symbol, where), count in samples.items():
        mode, part = part_of(symbol, where)
        modes[mode] += count
        parts[(mode, part)] += count
        symbols[(symbol, mode, part)] += count
        threads[thread] += count
    shares = lambda counted: [(key, count / whole) for key, count in counted.most_common()]
    return {"samples": sum(samples.values()), "modes": shares(modes), "parts": shares(parts), "symbols": shares(symbols),
            "threads": shares(threads)}


def record(pids, seconds, directory):
    """Starts to record all threads of the processes; what it returns is waited for with `collect`."""
    path = Path(directory) / "perf.data"
    command = ["perf", "record", "--quiet", "-e", "cpu-clock", "-F", str(FREQUENCY), "-o", path, "-p", ",".join(map(str, pids)), "--",
               "sleep", str(seconds)]
    try:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True), path
    except FileNotFoundError as error:
        raise Failed("perf is not installed; Debian has it in the package linux-perf") from error


def collect(recording):
    process, path = recording
    words = process.communicate(timeout=120)[1]
    if process.returncode != 0:
        raise Failed(f"perf record failed:\n{words[-1000:]}")
    done = subprocess.run(["perf", "script", "-i", path, "--no-inline", "-F", "comm,tid,ip,sym,dso"], capture_output=True, text=True,
                          timeout=600, check=False)
    path.unlink()
    if done.returncode != 0:
        raise Failed(f"perf script failed:\n{done.stderr[-1000:]}")
    return read(done.stdout)


def tables(folded, cpu_us):
    """(heading, columns, rows) of each table; microseconds are of a request."""
    line = lambda share: [f"{share:.1%}", f"{share * cpu_us:.2f}" if cpu_us else "-"]
    shorten = lambda text: text if len(text) <= 100 else text[:97] + "..."
    return [
        ("Kernel and user", ["", "share", "us/req"], [[mode, *line(share)] for mode, share in folded["modes"]]),
        ("Parts", ["", "part", "share", "us/req"], [[mode, part, *line(share)] for (mode, part), share in folded["parts"]]),
        (f"Top {TOP} symbols", ["symbol", "part", "share", "us/req"],
         [[shorten(symbol.replace("|", "/")), f"{mode}: {part}", *line(share)]
          for (symbol, mode, part), share in folded["symbols"][:TOP]]),
        ("Threads", ["thread", "share", "us/req"], [[thread, *line(share)] for thread, share in folded["threads"] if share >= 0.001]),
    ]
