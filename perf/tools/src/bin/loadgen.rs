//! Asks, and tells how long the answers took. `loadgen serve` takes one run after the other from standard input and
//! keeps its origin, and with it the gateways' idle connections, alive between them.

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use clap::Parser;
use ringway_perf::load::{Bench, Options, Orders};
use ringway_perf::machine;

fn prepare(processor: Option<usize>) -> io::Result<()> {
    if let Some(processor) = processor {
        machine::pin(processor)?;
    }
    machine::prepare()
}

fn once(options: &Options) -> io::Result<()> {
    prepare(options.cpu)?;
    let report = Bench::new(&options.origin, &options.echo)?.run(options, None)?;
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    Ok(())
}

fn serve(orders: &Orders) -> io::Result<()> {
    prepare(orders.cpu)?;
    let mut bench = Bench::new(&orders.origin, &orders.echo)?;
    let (input, mut output) = (io::stdin(), io::stdout());
    // Whole lines arrive one at a time, and the next comes only after the answer: nothing is left in a buffer.
    loop {
        bench.idle(&input)?;
        let mut line = String::new();
        if input.lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str::<Vec<String>>(&line) {
            Err(error) => serde_json::json!({"event": "refused", "error": error.to_string()}),
            Ok(arguments) => {
                let arguments = std::iter::once("loadgen".to_owned()).chain(arguments);
                let run = Options::try_parse_from(arguments).map_err(|error| error.to_string()).and_then(
                    |options| bench.run(&options, Some(&mut output)).map_err(|error| error.to_string()),
                );
                match run {
                    Ok(report) => serde_json::json!({"event": "report", "report": report.json()}),
                    Err(error) => serde_json::json!({"event": "refused", "error": error}),
                }
            }
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().peekable();
    let name = arguments.next().unwrap_or_default();
    let done = if arguments.peek().is_some_and(|first| first == "serve") {
        arguments.next();
        serve(&Orders::parse_from(std::iter::once(name).chain(arguments)))
    } else {
        once(&Options::parse())
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}
