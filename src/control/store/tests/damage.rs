//! Files that are not what was written: bits flipped, ends cut off, other things under their name.

use super::*;

/// A folder in memory where there is one: damage needs many files and no disk.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// The bytes of a file in use for a while, as left by a clean end and by a sudden one, with the mark beside it, and what
/// is in it.
fn images(rng: &mut Rng) -> ([Image; 2], State) {
    let dir = folder();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    for _ in 0..30 {
        commit(&mut store, random_changes(rng));
    }
    commit(&mut store, vec![route("1", "the last")]);
    let state = State::of(&store);
    let image = || ["store.redb", "store.mark"].map(|name| fs::read(dir.path().join(name)).unwrap());
    let sudden = image();
    drop(store);
    ([image(), sudden], state)
}

/// A file and its mark.
type Image = [Vec<u8>; 2];

/// Opens a file of these bytes with that mark: it is refused and left alone, or has just that state and can be written to.
/// Says whether it was refused.
fn check((bytes, mark): (&[u8], &[u8]), state: &State, place: &str) -> bool {
    let dir = folder();
    let file = dir.path().join("store.redb");
    fs::write(&file, bytes).unwrap();
    fs::write(dir.path().join("store.mark"), mark).unwrap();
    let mut store = match Store::open(dir.path(), Seal::default()) {
        Ok(store) => store,
        Err(error) => {
            assert!(
                error.to_string().starts_with(&format!("{}: damaged: ", file.display())),
                "{place}: {error}"
            );
            assert!(error.to_string().ends_with("move both away"), "{place}: {error}");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{place}");
            assert!(fs::read(&file).unwrap() == bytes, "{place}: was written to");
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

#[test]
fn a_flipped_bit_is_refused_or_does_no_harm() {
    let seed = seed();
    let mut rng = Rng::seeded(seed);
    let (images, state) = images(&mut rng);
    let mut refused = 0;
    for (end, [image, mark]) in ["clean", "sudden"].iter().zip(&images) {
        assert!(!check((image, mark), &state, end));
        // Every byte of the head, all bits of its flags, and places anywhere.
        let head = (0..320).map(|at| (at, 1 << rng.below(8)));
        let flags = (0..8).map(|bit| (9, 1 << bit));
        let mut places: Vec<(usize, u8)> = head.collect();
        places.extend(flags);
        places.extend((0..400).map(|_| (rng.below(image.len() as u64) as usize, 1 << rng.below(8))));
        for (at, bit) in places {
            let mut bytes = image.clone();
            bytes[at] ^= bit;
            let place = format!("RINGWAY_SEED={seed} {end}, byte {at} bit {bit:#x} of {}", image.len());
            refused += usize::from(check((&bytes, mark), &state, &place));
        }
    }
    assert!(refused > 20, "RINGWAY_SEED={seed}: {refused} refused");
}

#[test]
fn a_page_that_is_zero_or_another_is_refused_or_does_no_harm() {
    const PAGE: usize = 4096;
    let seed = seed();
    let mut rng = Rng::seeded(seed);
    let (images, state) = images(&mut rng);
    for (end, [image, mark]) in ["clean", "sudden"].iter().zip(&images) {
        let pages = image.len() / PAGE;
        for page in 0..pages.min(200) {
            let other = rng.below(pages as u64) as usize * PAGE;
            for filler in [vec![0; PAGE], image[other..other + PAGE].to_vec()] {
                let mut bytes = image.clone();
                bytes[page * PAGE..][..PAGE].copy_from_slice(&filler);
                check((&bytes, mark), &state, &format!("RINGWAY_SEED={seed} {end}, page {page} as {other}"));
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let seed = seed();
    let mut rng = Rng::seeded(seed);
    let (images, state) = images(&mut rng);
    for (end, [image, mark]) in ["clean", "sudden"].iter().zip(&images) {
        let lengths = [0, 1, 9, 319, 320, 4095, 4096, 8192, image.len() - 4096, image.len() - 1];
        let random: Vec<usize> = (0..100).map(|_| rng.below(image.len() as u64) as usize).collect();
        for length in lengths.into_iter().chain(random) {
            check(
                (&image[..length], mark),
                &state,
                &format!("RINGWAY_SEED={seed} {end}, {length} of {}", image.len()),
            );
        }
        assert!(check((&[], mark), &state, "nothing"));
    }
}

#[test]
fn a_file_that_has_gone_back_is_refused_and_a_copy_of_the_last_start_is_not() {
    let dir = folder();
    let (file, mark) = (dir.path().join("store.redb"), dir.path().join("store.mark"));
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    commit(&mut store, vec![route("1", "first")]);
    let earlier = fs::read(&file).unwrap();
    commit(&mut store, vec![route("1", "second")]);
    drop(store);
    fs::write(&file, &earlier).unwrap();
    let error = Store::open(dir.path(), Seal::default()).unwrap_err();
    let expected = format!("it is at revision 1, and {} says that 2 was reached", mark.display());
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(fs::read(&file).unwrap() == earlier, "it is left alone");
    // As told.
    fs::remove_file(&mark).unwrap();
    let mut store = Store::open(dir.path(), Seal::default()).unwrap();
    assert_eq!(store.revision(), 1);
    commit(&mut store, vec![route("1", "third")]);
    drop(store);
    fs::copy(dir.path().join("store.redb.bak"), &file).unwrap();
    assert_eq!(Store::open(dir.path(), Seal::default()).unwrap().revision(), 1);
}

#[test]
fn other_things_under_its_name_are_refused() {
    let state = State::default();
    assert!(check((b"routes:\n  - id: 1\n#END\n", &[]), &state, "a text"));
    assert!(check((&[0; 65536], &[]), &state, "zeros"));
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
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}
