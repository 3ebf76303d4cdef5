use serde_json::json;

/// Show the version of this program
#[derive(clap::Args)]
#[command(after_help = "Example: cv version --json")]
pub struct Args {}

impl Args {
    pub fn run(self, json: bool) -> i32 {
        let version = env!("CARGO_PKG_VERSION");
        if json {
            println!("{}", json!({"name": "cv", "version": version}));
        } else {
            println!("cv {version}");
        }
        0
    }
}
