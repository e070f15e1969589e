//! Limits against models that are too simple to be wrong: shards take random turns at the same words, each step of a
//! compare-and-swap a turn of its own, on a clock that the dice move.

use super::log::Log;
use super::*;
use crate::base::rng::Rng;

const MS: u64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// Steps of each game; `RINGWAY_LIMIT_STEPS` has others.
fn steps() -> u64 {
    std::env::var("RINGWAY_LIMIT_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

/// What the dice begin with; `RINGWAY_LIMIT_SEED` has another.
fn seed() -> u64 {
    std::env::var("RINGWAY_LIMIT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_127)
}

fn at_ms(millis: u64) -> Moment {
    Moment::from_nanos(millis * MS)
}

/// What a shard is in the middle of: the words it has read, and when it looked at its clock.
#[derive(Clone, Copy, Default)]
struct Turnover {
    read: Option<[u64; 2]>,
    now: u64,
    cost: u64,
}

/// So many shards at one pair of words. `clock` is the true time; a shard reads it when it begins, and may be slow.
struct Game {
    rng: Rng,
    clock: u64,
    words: [u64; 2],
    shards: Vec<Turnover>,
}

impl Game {
    fn new(seed: u64, shards: usize, start: u64) -> Self {
        Self {
            rng: Rng::seeded(seed),
            clock: start,
            words: [0, 0],
            shards: vec![Turnover::default(); shards],
        }
    }

    /// Lets time pass, by `step` nanoseconds on average and now and then by far more, and picks who is next.
    fn turn(&mut self, step: u64) -> usize {
        self.clock += self.rng.below(2 * step);
        if self.rng.below(2000) == 0 {
            self.clock += self.rng.below(3000 * step);
        }
        self.rng.below(self.shards.len() as u64) as usize
    }

    /// The first half of a shard's turn reads, and `None`; the second has what was read, and forgets it.
    fn read(&mut self, shard: usize) -> Option<(Turnover, [u64; 2])> {
        let one = &mut self.shards[shard];
        if let Some(read) = one.read.take() {
            return Some((*one, read));
        }
        if one.now == 0 {
            *one = Turnover { read: None, now: self.clock, cost: 1 + self.rng.below(8) / 7 };
        }
        one.read = Some(self.words);
        None
    }

    /// Whether the first word is still `old`; then `next` takes its place.
    fn swap(&mut self, old: u64, next: u64) -> bool {
        self.swap_at(0, old, next)
    }

    fn swap_at(&mut self, word: usize, old: u64, next: u64) -> bool {
        let is_same = self.words[word] == old;
        if is_same {
            self.words[word] = next;
        }
        is_same
    }

    fn done(&mut self, shard: usize) {
        self.shards[shard] = Turnover::default();
    }
}

/// Each number of shards, with dice of its own.
fn games(start: u64, mut play: impl FnMut(Game, u64, String)) {
    for shards in 1..=8 {
        let seed = seed() + shards as u64;
        play(Game::new(seed, shards, start), steps() / 8, format!("seed {seed}, {shards} shards"));
    }
}

#[test]
fn no_interleaving_overfills_a_fixed_window() {
    // Shortly before ticks of 32 bits come round, so that they do.
    let start = (COUNT_MAX - 2000) * TICK.as_nanos() as u64;
    games(start, |mut game, steps, told| {
        let (limit, window) = (7 + game.rng.below(50), Duration::from_millis(10 * (1 + game.rng.below(200))));
        let fixed = Fixed::new(limit, window);
        // The model: when the window began, by the clock of who opened it, and all that was spent in it.
        let (mut began, mut spent, mut refused, mut windows) = (0, 0, 0, 0);
        for step in 0..steps {
            let shard = game.turn(window.as_nanos() as u64 / (8 * limit));
            let Some((one, [word, _])) = game.read(shard) else { continue };
            let told = || format!("{told}, step {step}");
            let (said, next) = fixed.spend(word, Moment::from_nanos(one.now), one.cost);
            assert!(said.reset_in <= window && said.remaining <= limit, "{}: {said:?}", told());
            let tick = one.now / TICK.as_nanos() as u64;
            let is_over = began == 0 || tick >= began + (window.as_nanos() / TICK.as_nanos()) as u64;
            match next {
                Some(next) if game.swap(word, next) => {
                    if is_over {
                        (began, spent) = (tick, 0);
                        windows += 1;
                    }
                    spent += one.cost;
                    assert!(spent <= limit, "{}: {spent} of {limit}", told());
                    assert_eq!(said.remaining, limit - spent, "{}", told());
                    game.done(shard);
                }
                Some(_) => {}
                None => {
                    // With the word unchanged since it was read, the model must see no room either.
                    if game.words[0] == word {
                        assert!(!is_over && spent + one.cost > limit, "{}: refused at {spent}", told());
                    }
                    refused += 1;
                    game.done(shard);
                }
            }
        }
        assert!(windows > 50 && refused > 50, "{told}: {windows} windows, {refused} refused");
    });
}

#[test]
fn no_interleaving_overfills_a_sliding_window() {
    games(7_777 * MS, |mut game, steps, told| {
        let (limit, seconds) = (5 + game.rng.below(60), 1 + game.rng.below(5));
        let sliding = Sliding::new(limit, SECOND * seconds as u32);
        let window_ms = seconds * 1000;
        // The model: what was spent in each window, and which is the last that was entered.
        let mut spent = std::collections::BTreeMap::<u64, u64>::new();
        let (mut last, mut admitted, mut refused) = (0, 0, 0);
        for step in 0..steps {
            let shard = game.turn(window_ms * MS / (3 * limit));
            let Some((one, read)) = game.read(shard) else { continue };
            let told = || format!("{told}, step {step}");
            let now_ms = one.now / MS;
            let (number, left) = match now_ms / window_ms {
                number if number < last => (last, window_ms),
                number => (number, window_ms - now_ms % window_ms),
            };
            let of = |number: u64| spent.get(&number).copied().unwrap_or(0);
            // Exactly, in fractions of a window: what is spent, and what the window before still counts.
            let carried = if number == 0 { 0 } else { of(number - 1) * left / window_ms };
            match sliding.step(read, now_ms, one.cost) {
                Slide::Move { word, next } => {
                    if game.swap_at(word, read[word], next) {
                        let (number, sealed, _) = Sliding::read(next);
                        last = last.max(number - 1 + u64::from(sealed));
                    }
                }
                Slide::Admit { word, next, spent: said } if game.swap_at(word, read[word], next) => {
                    let sum = of(number) + carried + one.cost;
                    assert!(sum <= limit, "{}: {sum} of {limit}", told());
                    assert_eq!((said.admitted, said.remaining), (true, limit - sum), "{}", told());
                    *spent.entry(number).or_default() += one.cost;
                    admitted += 1;
                    game.done(shard);
                }
                Slide::Admit { .. } => {}
                Slide::Refuse(said) => {
                    if game.words == read {
                        assert!(of(number) + carried + one.cost > limit, "{}", told());
                        assert!(said.reset_in <= SECOND * seconds as u32, "{}", told());
                    }
                    refused += 1;
                    game.done(shard);
                }
            }
        }
        assert!(admitted > 50 && refused > 50, "{told}: {admitted} admitted, {refused} refused");
    });
}

#[test]
fn no_interleaving_overfills_a_log() {
    games(5 * MS, |mut game, steps, told| {
        let window = Duration::from_millis(10 + game.rng.below(3000));
        let log = Log::new(2, window).expect("it is short and small");
        // The model: when each was admitted, by the clock of who admitted it.
        let (mut admitted, mut refused) = (Vec::<u64>::new(), 0);
        for step in 0..steps {
            let shard = game.turn(window.as_nanos() as u64 / 9);
            let Some((one, read)) = game.read(shard) else { continue };
            let now = Moment::from_nanos(one.now);
            let in_force = |at: &&u64| *at + window.as_nanos() as u64 > one.now;
            match read.iter().position(|word| Log::is_free(*word, now)) {
                Some(word) if game.swap_at(word, read[word], log.until(now)) => {
                    let before = admitted.iter().filter(|at| **at <= one.now);
                    let others = before.rev().take(8).filter(in_force).count();
                    assert!(others < 2, "{told}, step {step}: {others} others in force");
                    admitted.push(one.now);
                    game.done(shard);
                }
                Some(_) => {}
                None => {
                    if game.words == read {
                        let others = admitted.iter().rev().take(8).filter(in_force).count();
                        assert!(others >= 2, "{told}, step {step}: refused beside {others}");
                    }
                    refused += 1;
                    game.done(shard);
                }
            }
        }
        // Whatever stretch one looks at.
        admitted.sort_unstable();
        for (first, third) in admitted.iter().zip(&admitted[2..]) {
            assert!(third - first >= window.as_nanos() as u64, "{told}: {first} and {third}");
        }
        assert!(
            admitted.len() > 50 && refused > 50,
            "{told}: {} admitted, {refused} refused",
            admitted.len()
        );
    });
}

#[test]
fn no_interleaving_has_a_bucket_run_faster() {
    games(9 * MS, |mut game, steps, told| {
        let (rate, burst) = (1.0 + game.rng.below(500) as f64 / 3.0, game.rng.below(20));
        let bucket = Leaky::new(rate, burst as f64, Duration::from_secs(3600));
        let spacing = bucket.spacing_ns();
        assert!(spacing as f64 >= 1e9 / rate, "{told}");
        // The model: a level that falls as time goes by and rises with each request, and all that was admitted.
        let (mut level, mut seen_at) = (0_i128, None::<u64>);
        let (mut admitted, mut refused) = (Vec::<u64>::new(), 0);
        for step in 0..steps {
            let shard = game.turn(spacing / 6);
            let Some((one, [word, _])) = game.read(shard) else { continue };
            let told = || format!("{told}, step {step}");
            let after = match seen_at {
                None => 0,
                Some(seen_at) => {
                    let gone = i128::from(one.now) - i128::from(seen_at);
                    (level - gone + i128::from(spacing)).max(0)
                }
            };
            match bucket.ask(word, Moment::from_nanos(one.now)) {
                Turn::Mine { next, after: wait } if game.swap(word, next) => {
                    assert_eq!(wait.as_nanos() as i128, after, "{}", told());
                    assert!(after <= i128::from(burst * spacing) + 1, "{}: waits {wait:?}", told());
                    (level, seen_at) = (after, Some(one.now));
                    admitted.push(one.now);
                    game.done(shard);
                }
                Turn::Mine { .. } => {}
                Turn::Full { .. } => {
                    if game.words[0] == word {
                        assert!(after > i128::from(burst * spacing), "{}", told());
                    }
                    refused += 1;
                    game.done(shard);
                }
            }
        }
        // Whatever stretch one looks at: no more than the rate and the burst.
        admitted.sort_unstable();
        for (first, from) in admitted.iter().enumerate().step_by(7) {
            for (last, to) in admitted.iter().enumerate().skip(first).take(200) {
                let most = (to - from) / spacing + burst;
                assert!((last - first) as u64 <= most, "{told}: {first} to {last}");
            }
        }
        assert!(
            admitted.len() > 50 && refused > 50,
            "{told}: {} admitted, {refused} refused",
            admitted.len()
        );
    });
}

#[test]
fn no_interleaving_has_more_in_than_seats() {
    games(1, |mut game, steps, told| {
        let seats = Seats::new(1 + game.rng.below(5), game.rng.below(4));
        let most = seats.conn + seats.burst;
        let (mut inside, mut refused) = (vec![0_u64; game.shards.len()], 0);
        for step in 0..steps {
            let shard = game.turn(1);
            let Some((_, [word, _])) = game.read(shard) else { continue };
            let told = || format!("{told}, step {step}");
            if game.rng.below(5) < 2 && inside[shard] > 0 {
                // Leaving is a subtraction, which nothing can come between.
                game.words[0] -= 1;
                inside[shard] -= 1;
            } else if let Some(taken) = seats.enter(word) {
                if game.swap(word, taken) {
                    inside[shard] += 1;
                    assert!(seats.waits(taken) * seats.conn < taken, "{}", told());
                }
            } else {
                refused += 1;
                assert!(word >= most, "{}", told());
            }
            let sum: u64 = inside.iter().sum();
            assert!(sum <= most && sum == game.words[0], "{}: {sum} of {most}", told());
            game.done(shard);
        }
        assert!(refused > 50, "{told}");
    });
}

#[test]
fn a_fixed_window_starts_with_its_first_use() {
    let fixed = Fixed::new(2, SECOND);
    let (first, word) = fixed.spend(0, at_ms(5_300), 1);
    assert_eq!(first, Spent { admitted: true, remaining: 1, reset_in: SECOND });
    let (_, word) = fixed.spend(word.unwrap(), at_ms(5_900), 1);
    let word = word.unwrap();
    let (third, none) = fixed.spend(word, at_ms(6_000), 1);
    assert_eq!(third, Spent { admitted: false, remaining: 0, reset_in: Duration::from_millis(300) });
    assert_eq!(none, None);
    assert_eq!(fixed.spend(word, at_ms(6_290), 1).1, None);
    assert!(fixed.spend(word, at_ms(6_300), 1).0.admitted);
    // A clock that is a little behind is no new window.
    assert_eq!(fixed.spend(word, at_ms(5_290), 1).1, None);
}

#[test]
fn what_is_given_back_goes_to_the_window_it_was_spent_in_or_to_none() {
    let fixed = Fixed::new(2, SECOND);
    let word = fixed.spend(0, at_ms(5_300), 1).1.unwrap();
    let (told, word) = fixed.spend(word, at_ms(5_900), 1);
    let (spent_at, word) = ((at_ms(5_900), told.reset_in), word.unwrap());
    let back = fixed.give_back(word, spent_at, 1).unwrap();
    assert_eq!(back & COUNT_MAX, 1);
    assert_eq!(fixed.give_back(back, spent_at, 9).map(|word| word & COUNT_MAX), Some(0));
    // Somebody whose clock is ahead has begun the next window.
    let next = fixed.spend(word, at_ms(6_300), 1).1.unwrap();
    assert_eq!(fixed.give_back(next, spent_at, 1), None);
    assert_eq!(fixed.give_back(0, spent_at, 1), None);

    let sliding = Sliding::new(2, SECOND);
    let mut words = [0, 0];
    slide(&sliding, &mut words, 5_300);
    slide(&sliding, &mut words, 5_400);
    assert!(!slide(&sliding, &mut words, 5_500).admitted);
    let (at, next) = sliding.give_back(words, 5_400, 1).unwrap();
    let mut back = words;
    back[at] = next;
    assert!(slide(&sliding, &mut back, 5_500).admitted);
    assert!(!slide(&sliding, &mut words, 6_000).admitted);
    assert_eq!(sliding.give_back(words, 5_400, 1), None, "the next window has reckoned with it");
}

#[test]
fn windows_of_years_do_not_end_early() {
    let year = Duration::from_secs(365 * 86_400);
    let fixed = Fixed::new(1, year);
    let word = fixed.spend(0, at_ms(1), 1).1.unwrap();
    let days = |days: u64| Moment::from_nanos(days * 86_400 * 1_000_000_000);
    for day in [1, 100, 248, 249, 364] {
        assert!(!fixed.spend(word, days(day), 1).0.admitted, "day {day}");
    }
    assert!(fixed.spend(word, days(366), 1).0.admitted);
    // The longest that can be written keeps to its bits.
    let longest = Fixed::new(u64::MAX, SECOND * u32::MAX);
    let (spent, word) = longest.spend(0, at_ms(1), COUNT_MAX);
    assert_eq!((spent.remaining, word.map(|word| word & COUNT_MAX)), (0, Some(COUNT_MAX)));
    assert!(!longest.spend(word.unwrap(), days(10_000), 1).0.admitted);
}

/// Spends until that is admitted or refused, with nobody in between.
fn slide(sliding: &Sliding, words: &mut [u64; 2], now_ms: u64) -> Spent {
    loop {
        match sliding.step(*words, now_ms, 1) {
            Slide::Move { word, next } => words[word] = next,
            Slide::Admit { word, next, spent } => {
                words[word] = next;
                return spent;
            }
            Slide::Refuse(spent) => return spent,
        }
    }
}

#[test]
fn a_sliding_window_carries_over_in_proportion_and_says_when_more_fits() {
    let sliding = Sliding::new(10, SECOND * 10);
    let mut words = [0, 0];
    let left: Vec<u64> = (0..10).map(|_| slide(&sliding, &mut words, 8_000).remaining).collect();
    assert_eq!(left, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    let said = slide(&sliding, &mut words, 9_000);
    assert_eq!(said.reset_in, SECOND, "spent in this window: only the next one helps");
    // 9.5 of ten still count.
    let said = slide(&sliding, &mut words, 10_500);
    assert_eq!((said.admitted, said.remaining, said.reset_in.as_millis()), (true, 0, 9_500));
    let said = slide(&sliding, &mut words, 10_500);
    let fits_at = 10_500 + said.reset_in.as_millis() as u64;
    assert!(!said.admitted && !slide(&sliding, &mut words.clone(), fits_at - 1).admitted);
    assert!(slide(&sliding, &mut words, fits_at).admitted);
    // A clock that is behind opens no old window.
    let before = words;
    assert!(!slide(&sliding, &mut words, 9_000).admitted);
    assert_eq!(words, before);
    // Two windows later nothing is carried over.
    assert_eq!(slide(&sliding, &mut words, 30_000).remaining, 9);
    assert_eq!(sliding.matters_ms(10_500), 30_000);
}

#[test]
fn turns_are_evenly_spaced_and_a_burst_goes_ahead() {
    let bucket = Leaky::new(4.0, 2.0, SECOND * 3600);
    let mut word = 0;
    let mut waits = Vec::new();
    for _ in 0..5 {
        match bucket.ask(word, at_ms(1000)) {
            Turn::Mine { next, after } => {
                word = next;
                waits.push(after.as_millis());
            }
            Turn::Full { retry_in } => assert_eq!(retry_in, Duration::from_millis(250)),
        }
    }
    assert_eq!(waits, [0, 250, 500]);
    assert!(matches!(bucket.ask(word, at_ms(1249)), Turn::Full { .. }));
    assert!(matches!(bucket.ask(word, at_ms(1250)), Turn::Mine { .. }));
    // After a rest nothing is saved up but the burst.
    assert_eq!(bucket.ask(word, at_ms(9000)), Turn::Mine { next: 9000 * MS, after: Duration::ZERO });
    // No turn is further away than is said.
    let short = Leaky::new(1.0, 1e300, SECOND);
    assert!(matches!(short.ask(5000 * MS, at_ms(4999)), Turn::Full { .. }));
    assert!(matches!(short.ask(5000 * MS, at_ms(5000)), Turn::Mine { .. }));
    // Whatever is written, it is a number that works.
    for (rate, burst) in [(1e-300, 0.0), (1e300, 0.0), (f64::MIN_POSITIVE, f64::MAX), (f64::MAX, f64::MAX)] {
        let odd = Leaky::new(rate, burst, Duration::MAX);
        assert!(matches!(odd.ask(0, at_ms(1)), Turn::Mine { .. }));
        odd.ask(u64::MAX, at_ms(1));
    }
}

#[test]
fn seats_beyond_the_first_wait_longer_and_longer() {
    let seats = Seats::new(2, 3);
    let waits: Vec<_> =
        (0..6).map_while(|taken| seats.enter(taken)).map(|taken| seats.waits(taken)).collect();
    assert_eq!(waits, [0, 0, 1, 1, 2]);
    assert_eq!(Seats::new(u64::MAX, u64::MAX).enter(u64::MAX), Some(u64::MAX));
    assert_eq!(Seats::new(1, 0).waits(1), 0);
}
