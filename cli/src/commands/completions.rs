use clap::CommandFactory;
use clap_complete::Shell;

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "Example: cv completions bash > /etc/bash_completion.d/cv")]
pub struct Args {
    shell: Shell,
}

impl Args {
    pub fn run(self) -> i32 {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut crate::args::Cv::command(), "cv", &mut text);
        match std::io::Write::write_all(&mut std::io::stdout(), &text) {
            Ok(()) => 0,
            Err(_) => 141,
        }
    }
}
