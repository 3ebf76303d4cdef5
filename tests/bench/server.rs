//! The S3 server that stores are measured with: `s3s-fs` over a directory of this machine. And a relay that counts.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use opendal::Operator;
use opendal::services::S3;

use crate::node::{Process, Programs};

const ACCESS_KEY: &str = "bench";
const SECRET_KEY: &str = "bench-secret";
const REGION: &str = "us-east-1";

/// An `s3s-fs` over a directory, ended when dropped.
pub struct S3Server {
    _process: Process,
    pub port: u16,
}

impl S3Server {
    pub fn start(root: &Path) -> Result<S3Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // Where the end-to-end test puts it, or wherever it is installed.
        let installed = Programs::target_dir()?.join("tools/bin/s3s-fs");
        let mut command = Command::new(if installed.is_file() {
            installed
        } else {
            "s3s-fs".into()
        });
        command
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
            .arg(root)
            .stderr(Stdio::null());
        let process = Process::start(command, Stdio::null())?;
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(
                begun.elapsed() < Duration::from_secs(10),
                "s3s-fs does not listen"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(S3Server {
            _process: process,
            port,
        })
    }

    /// A plain client of the bucket `bucket`, of the server or of a relay before it.
    pub fn operator(port: u16) -> Result<Operator> {
        curvine_actors::ufs::prepare();
        let builder = S3::default()
            .bucket("bucket")
            .endpoint(&format!("http://127.0.0.1:{port}"))
            .region(REGION)
            .access_key_id(ACCESS_KEY)
            .secret_access_key(SECRET_KEY);
        Ok(Operator::new(builder)?)
    }

    /// With what `s3://bucket` is mounted.
    pub fn mount_options(port: u16) -> [String; 4] {
        [
            format!("endpoint=http://127.0.0.1:{port}"),
            format!("region={REGION}"),
            format!("access_key_id={ACCESS_KEY}"),
            format!("secret_access_key={SECRET_KEY}"),
        ]
    }
}

/// Passes on what comes for a server, and counts requests without a body by their methods.
pub struct Counter {
    pub port: u16,
    counts: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Counter {
    /// Until this process ends.
    pub fn before(server: &S3Server) -> Result<Counter> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (port, behind) = (listener.local_addr()?.port(), server.port);
        let counts = Arc::new(Mutex::default());
        let counted = Arc::clone(&counts);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let counts = Arc::clone(&counted);
                std::thread::spawn(move || pass_on(client?, behind, &counts));
            }
        });
        Ok(Counter { port, counts })
    }

    /// Since it was asked last.
    pub fn taken(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.counts.lock().expect("nobody panics while it holds this"))
    }
}

fn pass_on(
    mut client: TcpStream,
    behind: u16,
    counts: &Mutex<BTreeMap<String, usize>>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", behind))?;
    for side in [&client, &server] {
        side.set_nodelay(true)?;
    }
    let (mut answers, mut asker) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut asker);
        let _ = asker.shutdown(Shutdown::Both);
    });
    // A request without a body fits into one piece, and no client sends the next before it has the answer.
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = client.read(&mut piece)?;
        if read == 0 {
            return server.shutdown(Shutdown::Both);
        }
        let method = piece[..read]
            .split(|byte| *byte == b' ')
            .next()
            .unwrap_or_default();
        if ["GET", "HEAD", "PUT", "POST", "DELETE"]
            .map(str::as_bytes)
            .contains(&method)
        {
            let method = String::from_utf8_lossy(method).into_owned();
            let mut counts = counts.lock().expect("nobody panics while it holds this");
            *counts.entry(method).or_default() += 1;
        }
        server.write_all(&piece[..read])?;
    }
}
