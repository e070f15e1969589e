//! Files that are not what was written: bits flipped, ends cut off, other things under their name.

use super::*;

/// A folder in memory where there is one: damage needs many files and no disk.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// The files of a store, in the order of an [`Image`].
const FILES: [&str; 3] = ["store.redb", "store.journal", "store.mark"];

/// The bytes of the files of a store.
type Image = [Vec<u8>; 3];

/// What is to be in a folder.
fn image_of(dir: &Path) -> Image {
    FILES.map(|name| fs::read(dir.join(name)).unwrap())
}

/// A store in use for a while, of which some is in the journal still, as left by a clean end and by a sudden one; and what
/// is in it.
fn images(rng: &mut Rng) -> ([Image; 2], State) {
    let dir = folder();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    for _ in 0..30 {
        commit(&mut store, random_changes(rng));
    }
    // It does not fit beside what is there, so all of that goes into the file.
    commit(&mut store, vec![route("1", &"x".repeat(200_000))]);
    for _ in 0..5 {
        commit(&mut store, random_changes(rng));
    }
    commit(&mut store, vec![route("1", "the last")]);
    let state = State::of(&store);
    let sudden = image_of(dir.path());
    drop(store);
    ([image_of(dir.path()), sudden], state)
}

/// Opens a store of these bytes: it is refused and left alone, or has just that state and can be written to. Says whether it
/// was refused.
fn check(image: [&[u8]; 3], state: &State, place: &str) -> bool {
    let dir = folder();
    for (name, bytes) in FILES.iter().zip(image) {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let mut store = match Store::open(dir.path(), Seal::default()) {
        Ok(store) => store,
        Err(error) => {
            let said = error.to_string();
            let is_of = |name| said.starts_with(&format!("{}: damaged: ", dir.path().join(name).display()));
            let is_told = is_of(FILES[0]) && said.ends_with("move both away")
                || is_of(FILES[1]) && said.ends_with("move store.mark away");
            assert!(is_told, "{place}: {error}");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{place}");
            assert!(image_of(dir.path()) == image, "{place}: was written to");
            return true;
        }
    };
    assert_eq!(State::of(&store), *state, "{place}");
    commit(&mut store, vec![route("2", "after damage")]);
    let state = State::of(&store);
    drop(store);
    assert_eq!(State::of(&Store::open(dir.path(), Seal::default()).unwrap()), state, "{place}, and then");
    false
}

/// The same, with other bytes for one of the files.
fn check_with(image: &Image, file: usize, bytes: &[u8], state: &State, place: &str) -> bool {
    let mut image = image.each_ref().map(Vec::as_slice);
    image[file] = bytes;
    check(image, state, &format!("{place}, {}", FILES[file]))
}

#[test]
fn a_flipped_bit_is_refused_or_does_no_harm() {
    let seed = seed();
    let mut rng = Rng::seeded(seed);
    let (images, state) = images(&mut rng);
    let mut refused = [0, 0];
    for (end, image) in ["clean", "sudden"].iter().zip(&images) {
        assert!(!check(image.each_ref().map(Vec::as_slice), &state, end));
        for file in [0, 1] {
            let length = image[file].len() as u64;
            // Every byte of the head, all bits of its flags, and places anywhere.
            let head = (0..320).map(|at| (at, 1 << rng.below(8)));
            let flags = (0..8).map(|bit| (9, 1 << bit));
            let mut places: Vec<(usize, u8)> = head.collect();
            places.extend(flags);
            places.extend((0..400).map(|_| (rng.below(length) as usize, 1 << rng.below(8))));
            for (at, bit) in places {
                let mut bytes = image[file].clone();
                bytes[at] ^= bit;
                let place = format!("RINGWAY_SEED={seed} {end}, byte {at} bit {bit:#x} of {length}");
                refused[file] += usize::from(check_with(image, file, &bytes, &state, &place));
            }
        }
    }
    assert!(refused.iter().all(|refused| *refused > 20), "RINGWAY_SEED={seed}: {refused:?} refused");
}

#[test]
fn a_page_that_is_zero_or_another_is_refused_or_does_no_harm() {
    const PAGE: usize = 4096;
    let seed = seed();
    let mut rng = Rng::seeded(seed);
    let (images, state) = images(&mut rng);
    for (end, image) in ["clean", "sudden"].iter().zip(&images) {
        for file in [0, 1] {
            let whole = &image[file];
            let pages = whole.len() / PAGE;
            for page in 0..pages.min(200) {
                let other = rng.below(pages as u64) as usize * PAGE;
                for filler in [vec![0; PAGE], whole[other..other + PAGE].to_vec()] {
                    let mut bytes = whole.clone();
                    bytes[page * PAGE..][..PAGE].copy_from_slice(&filler);
                    let place = format!("RINGWAY_SEED={seed} {end}, page {page} as {other}");
                    check_with(image, file, &bytes, &state, &place);
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let seed = seed();
    let mut rng = Rng::seeded(seed);
    let (images, state) = images(&mut rng);
    for (end, image) in ["clean", "sudden"].iter().zip(&images) {
        for file in [0, 1] {
            let length = image[file].len();
            let lengths = [0, 1, 9, 319, 320, 4095, 4096, 8192, length - 4096, length - 1];
            let random: Vec<usize> = (0..100).map(|_| rng.below(length as u64) as usize).collect();
            for cut in lengths.into_iter().chain(random) {
                let place = format!("RINGWAY_SEED={seed} {end}, {cut} of {length}");
                check_with(image, file, &image[file][..cut], &state, &place);
            }
        }
        assert!(check_with(image, 0, &[], &state, "nothing"));
        // After a clean end there is nothing in it.
        assert_eq!(check_with(image, 1, &[], &state, "nothing"), *end == "sudden");
    }
}

#[test]
fn a_file_that_has_gone_back_is_refused_and_a_copy_of_the_last_start_is_not() {
    let dir = folder();
    let (file, mark) = (dir.path().join("store.redb"), dir.path().join("store.mark"));
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    // The second does not fit beside the first, so both go into the file.
    commit(&mut store, vec![route("1", &"x".repeat(100_000))]);
    commit(&mut store, vec![route("1", "second")]);
    let earlier = fs::read(&file).unwrap();
    commit(&mut store, vec![route("1", "third")]);
    drop(store);
    fs::write(&file, &earlier).unwrap();
    fs::write(dir.path().join("store.journal"), "").unwrap();
    let error = Store::open(dir.path(), Seal::default()).unwrap_err();
    let expected = format!("it is at revision 2, and {} says that 3 was reached", mark.display());
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(fs::read(&file).unwrap() == earlier, "it is left alone");
    // As told.
    fs::remove_file(&mark).unwrap();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    assert_eq!(store.revision(), 2);
    commit(&mut store, vec![route("1", "third")]);
    // Not a clean end, so its journal is there.
    let image = image_of(dir.path());
    drop(store);
    for (name, bytes) in FILES.iter().zip(image) {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::copy(dir.path().join("store.redb.bak"), &file).unwrap();
    for _ in 0..2 {
        assert_eq!(Store::open(dir.path(), Seal::default()).unwrap().revision(), 2);
    }
}

#[test]
fn a_journal_that_is_damaged_is_gone_on_from_as_told() {
    let dir = folder();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    for text in ["first", "second", "third"] {
        commit(&mut store, vec![route("1", text)]);
    }
    let mut image = image_of(dir.path());
    drop(store);
    let second = image[1].windows(6).position(|bytes| bytes == b"second").unwrap();
    image[1][second] ^= 1;
    for (name, bytes) in FILES.iter().zip(image) {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let said = Store::open(dir.path(), Seal::default()).unwrap_err().to_string();
    let length = said.split("cut it to ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let journal = fs::OpenOptions::new().write(true).open(dir.path().join("store.journal")).unwrap();
    journal.set_len(length).unwrap();
    fs::remove_file(dir.path().join("store.mark")).unwrap();
    let store = Store::open(dir.path(), Seal::default()).unwrap();
    assert_eq!(store.get(Kind::Route, "1").unwrap().value["desc"], "first", "{said}");
}

#[test]
fn other_things_under_its_name_are_refused() {
    let state = State::default();
    assert!(check([b"routes:\n  - id: 1\n#END\n", &[], &[]], &state, "a text"));
    assert!(check([&[0; 65536], &[], &[]], &state, "zeros"));
    let dir = folder();
    fs::create_dir(dir.path().join("store.redb")).unwrap();
    let error = Store::open(dir.path(), Seal::default()).unwrap_err().to_string();
    assert!(error.starts_with(&dir.path().join("store.redb").display().to_string()), "{error}");
}

#[test]
fn the_way_out_is_the_copy_of_the_last_start() {
    let dir = folder();
    let (file, copy) = (dir.path().join("store.redb"), dir.path().join("store.redb.bak"));
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    commit(&mut store, vec![route("1", "first")]);
    drop(store);
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    let state = State::of(&store);
    commit(&mut store, vec![route("1", "second")]);
    drop(store);
    fs::write(&file, b"damage").unwrap();
    let error = Store::open(dir.path(), Seal::default()).unwrap_err().to_string();
    assert!(error.contains(&format!("move it away and copy {} in its place", copy.display())), "{error}");

    fs::remove_file(&file).unwrap();
    let error = Store::open(dir.path(), Seal::default()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains(&format!("is not there, but {} is", copy.display())), "{error}");
    fs::copy(&copy, &file).unwrap();
    assert_eq!(State::of(&Store::open(dir.path(), Seal::default()).unwrap()), state);

    fs::remove_file(&file).unwrap();
    fs::remove_file(&copy).unwrap();
    assert_eq!(State::of(&Store::open(dir.path(), Seal::default()).unwrap()), State::default());
}

#[test]
fn what_a_sudden_death_left_of_making_a_file_is_in_nobodys_way() {
    let dir = folder();
    for name in ["store.redb.new", "store.redb.bak.new"] {
        fs::write(dir.path().join(name), b"half").unwrap();
    }
    drop(Store::open(dir.path(), Seal::default()).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}
