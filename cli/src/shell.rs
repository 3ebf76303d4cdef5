//! What a command works with: the connection, the terminal, and how to answer.

use std::cell::{Cell, RefCell};
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::PathBuf;

use curvine_actors::client::{Client, ClientOptions};
use curvine_protocol::{CurvinePath, Error, ErrorKind, Result};
use serde::Serialize;

use crate::glob;

/// The exit code when nobody reads the output any more, as a shell reports a death by SIGPIPE.
const NOBODY_READS: i32 = 141;

pub struct Shell {
    pub client: Client,
    pub json: bool,
    /// The command's name, for messages.
    name: &'static str,
    masters: Vec<String>,
    options: ClientOptions,
    exit: Cell<i32>,
    out: Output,
}

impl Shell {
    /// Reads the configuration and connects; with `stale_reads`, to any master that answers.
    pub async fn connect(
        name: &'static str,
        master: Option<String>,
        config: Option<PathBuf>,
        json: bool,
        stale_reads: bool,
    ) -> Result<Shell> {
        let beside = PathBuf::from("curvine.toml");
        let file = config.or_else(|| beside.is_file().then_some(beside));
        let mut sources = curvine_conf::Sources::system(file);
        sources.flag("client.masters", "--master", master);
        let loaded = curvine_conf::load(&sources)?;
        loaded
            .warnings
            .iter()
            .for_each(|warning| eprintln!("cv: {name}: {warning}"));
        let client = loaded.config.client;
        let masters: Vec<String> = client.masters.iter().map(ToString::to_string).collect();
        let options = ClientOptions {
            retry_for: client.operation_timeout.0,
            connect_timeout: client.connect_timeout.0,
            stale_reads,
            ..ClientOptions::on_host(&client.host)
        };
        Ok(Shell {
            client: Client::connect(masters.clone(), options.clone()).await?,
            json,
            name,
            masters,
            options,
            exit: Cell::new(0),
            out: Output::new(),
        })
    }

    /// A session of its own, with connections of its own. Close it before the shell ends.
    pub async fn another_client(&self) -> Result<Client> {
        Client::connect(self.masters.clone(), self.options.clone()).await
    }

    /// Whether a person looks at the progress of this command.
    pub fn shows_progress(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    pub fn line(&self, text: impl AsRef<str>) {
        self.bytes(text.as_ref().as_bytes());
        self.bytes(b"\n");
    }

    pub fn bytes(&self, bytes: &[u8]) {
        self.out.write(bytes);
    }

    /// Makes what was printed visible at once.
    pub fn flush(&self) {
        self.out.flush();
    }

    /// An object on a line of its own.
    pub fn json_line(&self, value: &impl Serialize) {
        self.line(serde_json::to_string(value).expect("our records have string keys"));
    }

    /// JSON if that is asked for, else text.
    pub fn answer(&self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.json_line(value);
        } else {
            self.line(text());
        }
    }

    /// Reports an error and goes on; the first one decides the exit code.
    pub fn failed(&self, error: &Error) {
        self.flush();
        complain(self.name, error);
        self.exit_with(error.kind.exit_code());
    }

    /// Ends with this code, unless an earlier failure decided already.
    pub fn exit_with(&self, code: i32) {
        if self.exit.get() == 0 {
            self.exit.set(code);
        }
    }

    /// Ends the session; says the exit code.
    pub async fn end(self) -> i32 {
        self.flush();
        self.client.close().await;
        self.exit.get()
    }

    /// The paths that the arguments name, globs resolved. What does not match is reported.
    pub async fn expand(&self, arguments: &[String]) -> Vec<CurvinePath> {
        let mut paths = Vec::new();
        for argument in arguments {
            match glob::expand(&self.client, argument).await {
                Ok(found) => paths.extend(found),
                Err(error) => self.failed(&error),
            }
        }
        paths
    }

    /// Does something to each path; a failure is reported and the others still get their turn.
    pub async fn each<F: Future<Output = Result<()>>>(
        &self,
        arguments: &[String],
        mut act: impl FnMut(CurvinePath) -> F,
    ) {
        for path in self.expand(arguments).await {
            let named = path.clone();
            if let Err(error) = act(path).await {
                self.failed(&naming(error, &named));
            }
        }
    }
}

/// Makes sure that a message names what it is about.
pub fn naming(error: Error, what: impl std::fmt::Display) -> Error {
    let what = what.to_string();
    if error.message.contains(&what) {
        error
    } else {
        error.while_doing(what)
    }
}

/// One line on standard error.
pub fn complain(name: &str, error: &Error) {
    let message = error.message.lines().collect::<Vec<_>>().join(" ");
    // Nobody may be there to read it; the exit code still says it.
    let _ = writeln!(io::stderr(), "cv: {name}: {}", crate::format::shown(&message));
}

/// A name that ends with a slash is that of a directory.
pub fn no_directory(path: &CurvinePath) -> Error {
    Error::new(
        ErrorKind::NotADirectory,
        format!("{path}/ is no directory; make it with `cv mkdir`, or leave the slash out"),
    )
}

pub fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Standard output. If its reader is gone, the process ends without a word, as `head` expects of its left side.
struct Output(RefCell<BufWriter<Stdout>>);

impl Output {
    fn new() -> Self {
        Output(RefCell::new(BufWriter::with_capacity(64 << 10, io::stdout())))
    }

    fn write(&self, bytes: &[u8]) {
        check(self.0.borrow_mut().write_all(bytes));
    }

    fn flush(&self) {
        check(self.0.borrow_mut().flush());
    }
}

fn check(result: io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(NOBODY_READS),
        Err(error) => {
            let _ = writeln!(io::stderr(), "cv: cannot write the output: {error}");
            std::process::exit(ErrorKind::Io.exit_code());
        }
    }
}
