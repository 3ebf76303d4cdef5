//! The commands: one file each, with its arguments, what it does and how it answers.

macro_rules! modules {
    ($($module:ident)*) => { $(pub mod $module;)* };
}

modules! {
    acl balance bench blocks cat chmod chown completions count df du free fsck get head load load_cancel load_plan load_status locks ls master mkdir
    mount mounts mv node persist pin pins put quota replicas report rm scrub stat tail tier touch ttl umount unpin version why
}

use curvine_protocol::Result;

use crate::args::{Command, Cv};
use crate::shell::Shell;

/// Runs a command; says the exit code.
pub async fn run(cv: Cv) -> Result<i32> {
    let name = cv.command.name();
    match cv.command {
        Command::Version(args) => return Ok(args.run(cv.json)),
        Command::Completions(args) => return Ok(args.run()),
        _ => {}
    }
    if let Command::Master(args) = &cv.command
        && let Some(outcome) = args.run_alone(cv.json)
    {
        return outcome.map(|()| 0);
    }
    cv.command.check()?;
    let stale_reads = cv.command.reads_stale();
    let shell = Shell::connect(name, cv.master, cv.config, cv.json, stale_reads).await?;
    let result = match cv.command {
        Command::Ls(args) => args.run(&shell).await,
        Command::Persist(args) => args.run(&shell).await,
        Command::Stat(args) => args.run(&shell).await,
        Command::Cat(args) => args.run(&shell).await,
        Command::Head(args) => args.run(&shell).await,
        Command::Tail(args) => args.run(&shell).await,
        Command::Du(args) => args.run(&shell).await,
        Command::Df(args) => args.run(&shell).await,
        Command::Count(args) => args.run(&shell).await,
        Command::Blocks(args) => args.run(&shell).await,
        Command::Mkdir(args) => args.run(&shell).await,
        Command::Touch(args) => args.run(&shell).await,
        Command::Mv(args) => args.run(&shell).await,
        Command::Rm(args) => args.run(&shell).await,
        Command::Chmod(args) => args.run(&shell).await,
        Command::Chown(args) => args.run(&shell).await,
        Command::Acl(args) => args.run(&shell).await,
        Command::Replicas(args) => args.run(&shell).await,
        Command::Put(args) => args.run(&shell).await,
        Command::Get(args) => args.run(&shell).await,
        Command::Mount(args) => args.run(&shell).await,
        Command::Umount(args) => args.run(&shell).await,
        Command::Mounts(args) => args.run(&shell).await,
        Command::Locks(args) => args.run(&shell).await,
        Command::Load(args) => args.run(&shell).await,
        Command::LoadStatus(args) => args.run(&shell).await,
        Command::LoadCancel(args) => args.run(&shell).await,
        Command::Free(args) => args.run(&shell).await,
        Command::Pin(args) => args.run(&shell).await,
        Command::Unpin(args) => args.run(&shell).await,
        Command::Pins(args) => args.run(&shell).await,
        Command::Quota(args) => args.run(&shell).await,
        Command::Tier(args) => args.run(&shell).await,
        Command::Ttl(args) => args.run(&shell).await,
        Command::Report(args) => args.run(&shell).await,
        Command::Fsck(args) => args.run(&shell).await,
        Command::Why(args) => args.run(&shell).await,
        Command::Scrub(args) => args.run(&shell).await,
        Command::Balance(args) => args.run(&shell).await,
        Command::Node(args) => args.run(&shell).await,
        Command::Master(args) => args.run(&shell).await,
        Command::Bench(args) => args.run(&shell).await,
        Command::Version(_) | Command::Completions(_) => Ok(()),
    };
    if let Err(error) = result {
        shell.failed(&error);
    }
    Ok(shell.end().await)
}

impl Command {
    /// How many threads the program runs on.
    pub fn threads(&self) -> usize {
        match self {
            Command::Bench(args) => args.threads(),
            _ => 2,
        }
    }

    /// Whether any master may answer, with what it has.
    fn reads_stale(&self) -> bool {
        match self {
            Command::Ls(args) => args.stale,
            Command::Stat(args) => args.stale,
            _ => false,
        }
    }

    /// What can be refused without asking a master.
    fn check(&self) -> Result<()> {
        match self {
            Command::Chmod(args) => args.check(),
            Command::Chown(args) => args.check(),
            Command::Mount(args) => args.check(),
            Command::Load(args) => args.check(),
            Command::Pin(args) => args.check(),
            _ => Ok(()),
        }
    }
}
