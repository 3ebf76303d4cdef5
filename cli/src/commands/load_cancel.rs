use curvine_protocol::{JobId, Result};

use super::load_status::JobJson;
use crate::shell::Shell;

/// Stop a load job; what it has loaded stays cached
#[derive(clap::Args)]
#[command(after_help = "Example: cv load-cancel 7")]
pub struct Args {
    #[arg(value_name = "ID")]
    id: u64,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        let job = shell.client.cancel_job(JobId(self.id)).await?;
        shell.answer(&JobJson::new(&job), || format!("job {} is cancelled", job.id));
        Ok(())
    }
}
