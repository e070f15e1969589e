//! Sudden death: a process that commits in a loop is killed, again and again, on the same file.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;

const FOLDER: &str = "RINGWAY_KILL_FOLDER";
const CHILD: &str = "control::store::tests::kill::a_child_commits_until_it_is_killed";
const ROUTES: u64 = 7;

/// What the commit of a revision writes: two objects that are always equal, and one of several in turn. A thousand of
/// them fit in history.
fn changes_of(revision: u64) -> Vec<Change> {
    let value = |size: u64| json!({ "revision": revision, "padding": "x".repeat(size as usize) });
    vec![
        put(Kind::Service, "a", value(10)),
        put(Kind::Route, &(revision % ROUTES).to_string(), value(revision * 977 % 6_000)),
        put(Kind::Service, "b", value(10)),
    ]
}

/// Not a test by itself: it does nothing unless the other one runs it.
#[test]
fn a_child_commits_until_it_is_killed() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let mut store = Store::open(Path::new(&folder), Seal::default()).unwrap();
    let mut output = io::stdout().lock();
    loop {
        let next = store.revision() + 1;
        let revision = commit(&mut store, changes_of(next));
        // Past the test runner, which would keep what is printed to itself.
        writeln!(output, "\nacknowledged {revision}").unwrap();
        output.flush().unwrap();
    }
}

/// Runs the child, kills it after that many acknowledgements, and returns the last it gave.
fn last_acknowledged(folder: &Path, after: u64) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([CHILD, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged =
        lines.by_ref().filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
    let seen = acknowledged.by_ref().take(after as usize).last().expect("the child commits");
    child.kill().unwrap();
    // What it said before it died, and nobody has read yet.
    let last = acknowledged.last().unwrap_or(seen);
    assert!(!child.wait().unwrap().success());
    last
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_nothing_is_torn() {
    let rounds = env::var("RINGWAY_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let seed = seed();
    let mut rng = Rng::seeded(seed);
    let dir = TempDir::new().unwrap();
    let mut revision = 0;
    for round in 0..rounds {
        let place = format!("RINGWAY_SEED={seed} round {round}");
        let last = last_acknowledged(dir.path(), 1 + rng.below(30));
        assert!(last > revision, "{place}");
        let store = Store::open(dir.path(), Seal::default()).unwrap();
        revision = store.revision();
        assert!(
            (last..=last + 1).contains(&revision),
            "{place}: {revision} is there, {last} was acknowledged"
        );

        let mut expected = BTreeMap::new();
        for known in revision.saturating_sub(ROUTES - 1).max(1)..=revision {
            for change in changes_of(known) {
                let Change::Put(raw) = change else { continue };
                expected.insert((raw.kind, raw.id.as_str().to_owned()), raw.value);
            }
        }
        assert_eq!(values_of(store.resources()), expected, "{place}");
        let history = store.history(usize::MAX).unwrap();
        assert_eq!(history.len() as u64, revision.min(HISTORY_KEPT as u64), "{place}");
        for (past, number) in history.iter().zip((1..=revision).rev()) {
            let after = past.changes.iter().filter_map(|changed| changed.after.clone());
            let mut expected = changes_of(number);
            expected.sort_by_key(|change| matches!(change, Change::Put(raw) if raw.kind == Kind::Service));
            let expected = expected.into_iter().filter_map(|change| match change {
                Change::Put(raw) => Some(raw.value),
                Change::Delete(..) => None,
            });
            assert_eq!(past.revision, number, "{place}");
            assert!(after.eq(expected), "{place}: revision {number}");
        }
    }
}
