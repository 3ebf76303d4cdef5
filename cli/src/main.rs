//! `cv`: the command line of Curvine.
//!
//! One command, one file in [`commands`]. A command gets a [`Shell`](shell::Shell): the connection, the terminal and the manner of
//! answering (text or JSON). Exit codes: 0 done, 1 refused by the file system, 2 wrong use, 3 the cluster cannot be
//! reached, 4 data or disk trouble, 5 a defect, 130 interrupted, 141 nobody reads the output.

mod args;
mod commands;
mod format;
mod glob;
mod mode;
mod shell;
mod signals;
mod transfer;
mod users;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cv;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cv = Cv::parse();
    let name = cv.command.name();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cv.command.threads())
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cv: {name}: cannot start: {error}");
            return ExitCode::from(5);
        }
    };
    let code = runtime.block_on(async {
        match commands::run(cv).await {
            Ok(code) => code,
            Err(error) => {
                shell::complain(name, &error);
                error.kind.exit_code()
            }
        }
    });
    // A read of the terminal that waits in the background must not hold the process.
    runtime.shutdown_background();
    ExitCode::from(u8::try_from(code).unwrap_or(5))
}
