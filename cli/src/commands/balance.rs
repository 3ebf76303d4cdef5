use std::time::Duration;

use curvine_protocol::master::{BalanceEnd, BalanceOutcome, BalanceStatus, TOLERANCES, WorkerShare};
use curvine_protocol::{Error, ErrorKind, Result};
use serde_json::json;
use tokio::time::sleep;

use crate::format;
use crate::shell::Shell;

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Say how full workers are, and have what they keep moved until they are alike
///
/// With --now, blocks go from fuller workers to emptier ones, one after the other, until no worker is further from all together
/// than is tolerated. Each is copied, and goes where it was once others have enough of it. What lacks replicas is seen to
/// first. What is cached stays where it is: it goes when the room is needed. It goes on without this command, also under
/// another leader; a worker that is silent is waited for, 40 s long. Ends with 1 if --wait found that nothing could be moved
/// any more, or that a worker is away.
///
/// JSON: run (tolerance_percent, begun_ms) or null, ended (at_ms, how: Balanced, OthersBalanced, NothingToMove, Stopped) or null,
/// workers (worker, kept_bytes, capacity_bytes), moved_blocks, moved_bytes, failure.
#[derive(clap::Args)]
#[command(after_help = "Example: cv balance\n         cv balance --now --wait\n         cv balance --stop")]
pub struct Args {
    /// Begin, or go on with another tolerance
    #[arg(long, conflicts_with = "stop")]
    now: bool,
    /// How far a worker may be from all together, in percent of what it has room for
    #[arg(long, value_name = "PERCENT", default_value_t = 10, requires = "now",
          value_parser = clap::value_parser!(u8).range(i64::from(*TOLERANCES.start())..=i64::from(*TOLERANCES.end())))]
    tolerance: u8,
    /// Wait until it ends
    #[arg(short, long, requires = "now")]
    wait: bool,
    /// Stop: what is being copied ends, and nothing is begun
    #[arg(long)]
    stop: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let before = shell.client.balance().await?;
        if self.stop {
            if before.run.is_none() {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    "nothing is being balanced; `cv balance` says how full workers are",
                ));
            }
            return shell.client.set_balance(None).await;
        }
        if !self.now {
            show(shell, &before);
            return Ok(());
        }
        shell.client.set_balance(Some(self.tolerance)).await?;
        if !self.wait {
            shell.line("begun; `cv balance` says how far it is");
            return Ok(());
        }
        let status = ended(shell).await?;
        show(shell, &status);
        match status.ended.map(|ended| ended.how) {
            Some(BalanceOutcome::Balanced) | None => {}
            Some(BalanceOutcome::OthersBalanced | BalanceOutcome::NothingToMove) => shell.exit_with(1),
            Some(BalanceOutcome::Stopped) => {
                return Err(Error::new(ErrorKind::Cancelled, "somebody has stopped it"));
            }
        }
        Ok(())
    }
}

async fn ended(shell: &Shell) -> Result<BalanceStatus> {
    let mut said = 0;
    loop {
        let status = shell.client.balance().await?;
        if status.run.is_none() {
            return Ok(status);
        }
        if !shell.json && status.moved_blocks != said {
            said = status.moved_blocks;
            shell.line(moved(&status));
            shell.flush();
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn moved(status: &BalanceStatus) -> String {
    format!(
        "moved so far: {} blocks, {}",
        status.moved_blocks,
        format::size(status.moved_bytes, true)
    )
}

fn show(shell: &Shell, status: &BalanceStatus) {
    if shell.json {
        shell.json_line(&json!({
            "run": status.run, "ended": status.ended, "workers": status.workers,
            "moved_blocks": status.moved_blocks, "moved_bytes": status.moved_bytes, "failure": status.failure,
        }));
        return;
    }
    let sum = |of: fn(&WorkerShare) -> u64| status.workers.iter().map(of).sum::<u64>();
    let all = percent(sum(|share| share.kept_bytes), sum(|share| share.capacity_bytes));
    let rows = status.workers.iter().map(|share| {
        let own = percent(share.kept_bytes, share.capacity_bytes);
        vec![
            share.worker.to_string(),
            format::size(share.kept_bytes, true),
            format::size(share.capacity_bytes, true),
            format!("{own:.1} %"),
            format!("{:+.1} %", own - all),
        ]
    });
    let titles = ["Worker", ">Kept", ">Capacity", ">Full", ">Off by"];
    shell.line(format::table(&titles, rows.collect()));
    let so_far = match (&status.run, &status.ended) {
        (Some(run), _) => Some(format!(
            "being balanced to {} %; {}",
            run.tolerance_percent,
            moved(status)
        )),
        (None, Some(ended)) => Some(format!("{}; {}", how(ended), moved(status))),
        (None, None) => None,
    };
    so_far.into_iter().for_each(|words| shell.line(words));
    if let Some(failure) = &status.failure {
        shell.line(format!("last failure: {failure}"));
    }
}

fn how(ended: &BalanceEnd) -> String {
    let when = format::second(ended.at_ms.saturating_mul(1_000_000));
    match ended.how {
        BalanceOutcome::Balanced => format!("balanced at {when}"),
        BalanceOutcome::OthersBalanced => format!(
            "those above were balanced at {when}; others were away for long: see `cv node`, and begin again when they are back"
        ),
        BalanceOutcome::NothingToMove => format!(
            "ended at {when}: nothing more could be moved; blocks are being written, too large, or on the emptier workers already, \
             or moves failed"
        ),
        BalanceOutcome::Stopped => format!("stopped at {when}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn percent(part: u64, of: u64) -> f64 {
    match of {
        0 => 0.0,
        _ => part as f64 * 100.0 / of as f64,
    }
}
