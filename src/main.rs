//! Parse, run, print the error chain. Knows no stage.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use lixelscope::cli::{self, Cli, CommandArgs, WindowArgs};
use lixelscope::{app, bench, doctor, eval, headless, train};

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("lixelscope=info,warn")).init();
    let done = match &cli.command {
        None => window(&cli.window),
        Some(CommandArgs::Run(args)) => headless::run(args),
        Some(CommandArgs::Bench(args)) => bench::run(args),
        Some(CommandArgs::Doctor(args)) => doctor::run(args),
        Some(CommandArgs::Convert(args)) => headless::convert(args),
        Some(CommandArgs::Body(args)) => headless::export_bodies(args),
        Some(CommandArgs::Synth(args)) => headless::synth(args),
        Some(CommandArgs::Train(args)) => train::run(args),
        Some(CommandArgs::Ablate(args)) => train::ablate(args),
        Some(CommandArgs::Eval(args)) => eval::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough (`lixelscope doctor | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lixelscope: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn window(args: &WindowArgs) -> Result<()> {
    app::run(args.pipeline.settings(args.source().kind())?, Some(args.source()), args.options())
}
