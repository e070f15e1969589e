//! What the system says of this process, read from `/proc` when asked. A number that can not be read is absent.

use std::fs;

/// Ticks of process times a second: fixed for user space on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory held, in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    kib_of(&status, "VmRSS:").map(|kib| kib * 1024)
}

fn kib_of(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

/// File descriptors open. Counts the one that counts them, too.
pub(crate) fn open_fds() -> Option<u64> {
    fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64)
}

/// File descriptors the process may have.
pub(crate) fn max_fds() -> Option<u64> {
    soft_limit(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Processor time spent by all threads.
pub(crate) fn cpu_seconds() -> Option<f64> {
    cpu_of(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Fields 14 and 15, counted after the name, which may hold spaces and brackets.
fn cpu_of(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// The machine's name.
pub(crate) fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

/// The kernel's release, such as `6.8.0`.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_what_the_kernel_prints() {
        assert_eq!(kib_of("Name:\tx\nVmRSS:\t    1234 kB\n", "VmRSS:"), Some(1234));
        assert_eq!(kib_of("Name:\tx\n", "VmRSS:"), None);
        assert_eq!(
            soft_limit("Max open files            1024      4096      files\n", "Max open files"),
            Some(1024)
        );
        assert_eq!(soft_limit("Max open files   unlimited  unlimited  files\n", "Max open files"), None);
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 3 0 5 6 7";
        assert_eq!(cpu_of(stat), Some(2.0));
        assert_eq!(cpu_of("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(open_fds().is_some_and(|fds| fds > 2));
    }
}
