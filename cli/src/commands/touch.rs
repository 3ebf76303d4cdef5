use curvine_actors::client::CreateOptions;
use curvine_protocol::master::{AttrChange, SetTime};
use curvine_protocol::{CurvinePath, ErrorKind, Result};

use crate::shell::{Shell, naming};

/// Make empty files, or set the time of existing ones to now
#[derive(clap::Args)]
#[command(after_help = "Example: cv touch /data/_SUCCESS")]
pub struct Args {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// Make nothing
    #[arg(short = 'c', long)]
    no_create: bool,
}

impl Args {
    pub async fn run(self, shell: &Shell) -> Result<()> {
        for text in &self.paths {
            if let Err(error) = self.touch(shell, text).await {
                shell.failed(&naming(error, text));
            }
        }
        Ok(())
    }

    async fn touch(&self, shell: &Shell, text: &str) -> Result<()> {
        let path = CurvinePath::parse(text)?;
        let now = AttrChange {
            atime: Some(SetTime::Now),
            mtime: Some(SetTime::Now),
            ..AttrChange::default()
        };
        match shell.client.set_attr(&path, true, now).await {
            Err(error) if error.kind == ErrorKind::NotFound => {}
            done => return done.map(|_| ()),
        }
        if !self.no_create {
            let file = shell.client.create(&path, CreateOptions::default()).await?;
            file.close().await?;
        }
        Ok(())
    }
}
