//! Who goes first where threads share a processor: cores do, the control thread waits for its turn and leaves them room.

use std::fs;
use std::path::Path;

use crate::kit::{Gateway, Origin};

/// What Linux calls a thread that takes nobody's place when it is woken.
const SCHED_BATCH: &str = "3";

/// The policy of a thread and its niceness, fields 41 and 19 of its `stat` (proc_pid_stat(5)).
fn turns(thread: &Path) -> (String, i32) {
    let stat = fs::read_to_string(thread.join("stat")).unwrap();
    // Its name, field 2, may have blanks and brackets.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let field = |number: usize| fields.split(' ').nth(number - 3).unwrap().to_owned();
    (field(41), field(19).parse().unwrap())
}

#[test]
fn cores_and_records_are_scheduled_as_usual_and_the_control_thread_takes_nobodys_place() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/hello", [&origin]).cores(2).start();
    let (usual, niceness) = turns(Path::new("/proc/thread-self"));
    let process = format!("/proc/{}/task", gateway.pid());
    let (mut cores, mut writers) = (0, 0);
    for thread in fs::read_dir(&process).unwrap().flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap();
        if name.starts_with("core-") {
            assert_eq!(turns(&thread.path()), (usual.clone(), niceness), "{name}");
            cores += 1;
        }
        // Records are lost where who writes them does not come to it.
        if name.trim_end() == "reports" {
            assert_eq!(turns(&thread.path()).1, niceness, "{name}");
            writers += 1;
        }
    }
    assert_eq!((cores, writers), (2, 1));
    let control = Path::new(&process).join(gateway.pid().to_string());
    assert_eq!(turns(&control), (SCHED_BATCH.to_owned(), (niceness + 10).min(19)));
}
