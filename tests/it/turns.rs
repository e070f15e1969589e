//! Who goes first where threads share a processor: cores do, the control thread waits for its turn.

use std::fs;
use std::path::Path;

use crate::kit::{Gateway, Origin};

/// What Linux calls a thread that takes nobody's place when it is woken.
const SCHED_BATCH: &str = "3";

/// The policy of a thread, field 41 of its `stat` (proc_pid_stat(5)).
fn policy(thread: &Path) -> String {
    let stat = fs::read_to_string(thread.join("stat")).unwrap();
    // Its name, field 2, may have blanks and brackets.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(41 - 3).unwrap().to_owned()
}

#[test]
fn cores_are_scheduled_as_usual_and_the_control_thread_takes_nobodys_place() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/hello", [&origin]).cores(2).start();
    let usual = policy(Path::new("/proc/thread-self"));
    let process = format!("/proc/{}/task", gateway.pid());
    let mut cores = 0;
    for thread in fs::read_dir(&process).unwrap().flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap();
        if name.starts_with("core-") {
            assert_eq!(policy(&thread.path()), usual, "{name}");
            cores += 1;
        }
    }
    assert_eq!(cores, 2);
    assert_eq!(policy(&Path::new(&process).join(gateway.pid().to_string())), SCHED_BATCH);
}
