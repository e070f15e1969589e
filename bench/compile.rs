//! From objects to a snapshot, and the end of that snapshot: what every change of configuration costs the control
//! thread.

mod kit;

use std::fmt::Write as _;
use std::process::ExitCode;

use kit::{Case, Scale, Work};
use ringway::model::Settings;
use ringway::model::resources::{self, Change, Format, Resources};
use ringway::snapshot::{Compiler, at_once};

/// Routes of a usual shape, every tenth with plugins, on a hundred shared upstreams.
fn objects(routes: usize) -> Resources {
    let mut text = String::from("{\"upstreams\": [");
    let upstreams = routes.min(100);
    for number in 0..upstreams {
        let comma = if number == 0 { "" } else { ", " };
        let _ = write!(
            text,
            "{comma}{{\"id\": \"u{number}\", \"nodes\": {{\"127.0.0.1:{}\": 1}}}}",
            2000 + number
        );
    }
    text.push_str("], \"routes\": [");
    for number in 0..routes {
        let comma = if number == 0 { "" } else { ", " };
        let plugins = if number % 10 == 0 {
            "\"plugins\": {\"limit-count\": {\"count\": 100, \"time_window\": 60}, \"prometheus\": {}}, "
        } else {
            ""
        };
        let _ = write!(
            text,
            "{comma}{{\"id\": \"r{number}\", \"uri\": \"/api/v1/resource-{number}/*\", \"methods\": [\"GET\"], \
             {plugins}\"upstream_id\": \"u{}\"}}",
            number % upstreams
        );
    }
    text.push_str("]}");
    resources::parse(&text, Format::Json, &|_| None).expect("a file of objects")
}

fn compiler() -> Compiler {
    Compiler::new(&Settings::default(), at_once(|_| Err("no names here".to_owned())))
}

/// All of them, by a compiler that has seen none.
fn compiling(routes: usize) -> Work {
    let objects = objects(routes);
    let work = move || {
        let mut compiler = compiler();
        let outcome = compiler.compile(&objects);
        outcome.faults.len() as u64 * 1_000_000 + outcome.snapshot.routes.len() as u64
    };
    assert_eq!(work(), routes as u64);
    Box::new(work)
}

/// One of them, which goes from path to path.
fn changing(routes: usize) -> Work {
    let objects = objects(routes);
    let mut compiler = compiler();
    compiler.compile(&objects);
    let middle = format!("r{}", routes / 2);
    let found = objects.objects.into_iter().find(|raw| raw.id.as_str() == middle);
    let mut raw = found.expect("the middle one is there");
    let mut turn = 0;
    let mut work = move || {
        turn += 1;
        raw.value["uri"] = format!("/changed/{}", turn % 10).into();
        let attempt = compiler.attempt(&[Change::Put(raw.clone())]).expect("a valid change");
        let outcome = compiler.adopt(attempt);
        outcome.faults.len() as u64 * 1_000_000 + outcome.snapshot.routes.len() as u64
    };
    assert_eq!(work(), routes as u64);
    Box::new(work)
}

fn main() -> ExitCode {
    let all = |scale: Scale| compiling(scale.pick(10, 10_000));
    let one = |scale: Scale| changing(scale.pick(10, 10_000));
    kit::run(&[
        Case { name: "10k-routes", iterations: 1, make: all },
        Case { name: "one-of-10k-routes", iterations: 200, make: one },
    ])
}
