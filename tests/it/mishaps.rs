//! Power cuts, damaged files, disks that are full or can not be written: what was acknowledged is there, what is wrong is
//! said, and traffic goes on.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, SmallDisk};

/// Power cuts with writes under way; `RINGWAY_TEST_CUTS` has another number.
const CUTS: u64 = 20;
/// Damages done to each file of a store.
const DAMAGES: u64 = 24;

/// Numbers that look random, from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn route(path: &str, origin: &Origin, desc: u64) -> String {
    let nodes = json!({origin.node(): 1});
    json!({"uri": path, "desc": desc.to_string(), "upstream": {"nodes": nodes}}).to_string()
}

/// The objects of a kind by id, as the Admin API tells them.
fn routes(gateway: &Gateway) -> Vec<(u64, u64)> {
    let list = gateway.admin().ask("GET", "/routes", &[], "").json();
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).unwrap();
    let of = |entry: &Value| (number(&entry["value"]["id"]), number(&entry["value"]["desc"]));
    list["list"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn power_cuts_with_writes_under_way_lose_nothing_acknowledged_and_tear_nothing() {
    let seed = 71;
    let mut dice = Dice(seed);
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::managed().start();
    // What the store must hold of each route: the last number acknowledged, and the one that was under way.
    let mut known: Vec<(u64, u64)> = vec![(0, 0); 4];
    let mut number = 0;
    let cuts = std::env::var("RINGWAY_TEST_CUTS").map_or(CUTS, |cuts| cuts.parse().expect("a number"));
    for cut in 0..cuts {
        let admin = gateway.admin();
        let notes = Mutex::new((&mut known, &mut number));
        let after = Duration::from_micros(2_000 + dice.below(60_000));
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut notes = notes.lock().unwrap();
                let (known, number) = &mut *notes;
                for at in (0..known.len()).cycle() {
                    **number += 1;
                    known[at].1 = **number;
                    let body = route(&format!("/r{at}"), &origin, **number);
                    match admin.try_ask("PUT", &format!("/routes/{at}"), &body) {
                        Some(answer) if matches!(answer.status, 200 | 201) => known[at].0 = **number,
                        Some(answer) => panic!("seed {seed}, cut {cut}: {}", answer.text()),
                        None => return,
                    }
                }
            });
            // Not for anything to happen: the moment is what is random.
            thread::sleep(after);
            gateway.cut_power();
            writer.join().unwrap();
        });
        gateway.start_again();
        for (id, found) in routes(&gateway) {
            let (acknowledged, under_way) = known[id as usize];
            let told =
                format!("seed {seed}, cut {cut}, route {id}: found {found}, {acknowledged} acknowledged");
            assert!(found == acknowledged || found == under_way, "{told}, {under_way} under way");
            known[id as usize] = (found, found);
            gateway.get(&format!("/r{id}")).expect(200, "hello");
        }
        let there = routes(&gateway).len();
        assert_eq!(
            there,
            known.iter().filter(|(acknowledged, _)| *acknowledged > 0).count(),
            "seed {seed}, cut {cut}"
        );
    }
    assert!(number > cuts, "writes were under way");
}

#[test]
fn a_damaged_store_is_refused_in_words_or_whole_and_never_empty() {
    let seed = 72;
    let mut dice = Dice(seed);
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::managed().start();
    for id in 0..15 {
        gateway.admin().put(&format!("/routes/{id}"), &route(&format!("/r{id}"), &origin, id));
    }
    // Half of them are in the file, the others in the journal.
    gateway.kill_and_start_again();
    for id in 15..30 {
        gateway.admin().put(&format!("/routes/{id}"), &route(&format!("/r{id}"), &origin, id));
    }
    gateway.cut_power();
    let files = ["store.redb", "store.journal", "store.mark"].map(|name| gateway.path("state").join(name));
    let whole = files.each_ref().map(|file| fs::read(file).unwrap());
    let restore = || files.iter().zip(&whole).for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
    let mut refused = [0; 2];
    for damage in 0..2 * DAMAGES {
        // All as the cut has left them.
        restore();
        let damaged = usize::from(damage < DAMAGES);
        let used = whole[damaged].iter().rposition(|byte| *byte != 0).unwrap();
        let at = dice.below(used as u64);
        let store = OpenOptions::new().write(true).open(&files[damaged]).unwrap();
        if damage % 2 == 0 {
            let flipped = whole[damaged][at as usize] ^ 1 << dice.below(8);
            store.write_all_at(&[flipped], at).unwrap();
        } else {
            store.set_len(at).unwrap();
        }
        drop(store);
        let told = format!("seed {seed}, damage {damage} of {} at byte {at}", files[damaged].display());
        match gateway.try_start_again() {
            Ok(()) => {
                assert_eq!(routes(&gateway).len(), 30, "{told}: started with less than was acknowledged");
                gateway.cut_power();
            }
            Err((code, said)) => {
                refused[damaged] += 1;
                assert_ne!(code, 0, "{told}: {said}");
                let names = ["store.redb", "store.journal"];
                assert!(names.iter().any(|name| said.contains(name)), "{told}: no file is named in: {said}");
                assert!(!said.contains("panicked"), "{told}: {said}");
            }
        }
    }
    assert!(refused.iter().all(|refused| *refused >= DAMAGES / 3), "{refused:?} damages were seen");
    restore();
    gateway.start_again();
    assert_eq!(routes(&gateway).len(), 30);
}

#[test]
fn a_full_disk_refuses_writes_in_words_and_costs_nothing_else() {
    let origin = Origin::replying("hello");
    let disk = SmallDisk::of(8 * 1024 * 1024);
    let mut gateway = Gateway::managed().state_on(disk.path()).start();
    gateway.admin().put("/routes/0", &route("/r0", &origin, 0));
    disk.fill();
    let mut taken = 1;
    let refused = (1..2_000).find_map(|id| {
        let body = route(&format!("/r{id}"), &origin, id);
        let answer = gateway.admin().ask("PUT", &format!("/routes/{id}"), &[], &body);
        taken += u64::from(answer.status == 201);
        (answer.status >= 500).then_some(answer)
    });
    let refused = refused.expect("the disk is full at last");
    assert!(refused.text().contains("space"), "{}", refused.text());
    gateway.get("/r0").expect(200, "hello");
    gateway.get(&format!("/r{taken}")).expect_status(404);
    assert_eq!(routes(&gateway).len() as u64, taken, "what was refused is not there");

    disk.make_room();
    gateway.admin().put("/routes/3000", &route("/again", &origin, 3000));
    gateway.get("/again").expect(200, "hello");
    gateway.kill_and_start_again();
    assert_eq!(routes(&gateway).len() as u64, taken + 1);
}

#[test]
fn a_disk_that_can_not_be_written_refuses_writes_in_words_and_what_is_kept_there_is_served() {
    let origin = Origin::replying("hello");
    let disk = SmallDisk::of(16 * 1024 * 1024);
    let mut gateway = Gateway::managed().state_on(disk.path()).start();
    gateway.admin().put("/routes/0", &route("/r0", &origin, 0));
    gateway.cut_power();
    disk.make_read_only();
    gateway.start_again();
    gateway.get("/r0").expect(200, "hello");
    assert_eq!(routes(&gateway), [(0, 0)]);
    let refused = gateway.admin().ask("PUT", "/routes/1", &[], &route("/r1", &origin, 1));
    assert!(refused.status >= 400 && refused.text().contains("Read-only"), "{}", refused.text());
    gateway.get("/r1").expect_status(404);
    gateway.wait_said(&["store.redb", "Read-only", "is served, and can not be changed"]);

    gateway.cut_power();
    disk.make_writable();
    gateway.start_again();
    gateway.admin().put("/routes/1", &route("/r1", &origin, 1));
    assert_eq!(routes(&gateway), [(0, 0), (1, 1)]);
}

#[test]
fn a_store_that_can_not_be_read_is_no_empty_one() {
    let origin = Origin::replying("hello");
    let disk = SmallDisk::of(16 * 1024 * 1024);
    let mut gateway = Gateway::managed().state_on(disk.path()).start();
    gateway.admin().put("/routes/0", &route("/r0", &origin, 0));
    gateway.cut_power();
    let file = disk.path().join("store.redb");
    fs::rename(&file, disk.path().join("aside")).unwrap();
    fs::create_dir(&file).unwrap();
    let (code, said) = gateway.try_start_again().expect_err("there is something, and it can not be read");
    assert!(code != 0 && said.contains("store.redb"), "{code}: {said}");
}
