//! A load into the cache, beside a plain concurrent read of the same objects from the same server.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use opendal::Operator;
use opendal::services::{Fs, S3};

use crate::Bench;
use crate::node::{Node, Process, Programs};
use crate::report::{Report, Row, Target};

/// Objects of a bucket: how many of which size.
const OBJECTS: [(&str, usize, usize); 4] = [
    ("4 KiB", 3_000, 4 << 10),
    ("64 KiB", 2_000, 64 << 10),
    ("1 MiB", 200, 1 << 20),
    ("64 MiB", 8, 64 << 20),
];
/// Concurrent requests of the plain read; the best of these is what a load is measured by.
const DEPTHS: [usize; 3] = [4, 16, 64];
const ACCESS_KEY: &str = "bench";
const SECRET_KEY: &str = "bench-secret";

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let root = bench.scratch.path().join("objects");
    for (name, count, bytes) in OBJECTS {
        let directory = root.join("bucket").join(name.replace(' ', "-"));
        std::fs::create_dir_all(&directory)?;
        for number in 0..bench.count(count).max(1) {
            let content: Vec<u8> = (0..bytes).map(|at| ((at * 31 + number) % 251) as u8).collect();
            std::fs::write(directory.join(format!("{number:05}")), content)?;
        }
    }
    let node = bench
        .programs
        .node_of_all_roles(&bench.scratch.path().join("load"))?;
    let operator = Operator::new(Fs::default().root(&root.join("bucket").to_string_lossy()))?;
    let uri = format!("file://{}", root.join("bucket").display());
    measure(bench, report, &node, "file", &uri, &[], &operator)?;
    match S3Server::start(&root) {
        Ok(server) => {
            let endpoint = format!("http://127.0.0.1:{}", server.port);
            let builder = S3::default()
                .bucket("bucket")
                .endpoint(&endpoint)
                .region("us-east-1")
                .access_key_id(ACCESS_KEY)
                .secret_access_key(SECRET_KEY);
            let options = [
                format!("endpoint={endpoint}"),
                "region=us-east-1".to_owned(),
                format!("access_key_id={ACCESS_KEY}"),
                format!("secret_access_key={SECRET_KEY}"),
            ];
            measure(
                bench,
                report,
                &node,
                "s3",
                "s3://bucket",
                &options,
                &Operator::new(builder)?,
            )?;
        }
        Err(error) => eprintln!("  load from S3 skipped: {error:#}"),
    }
    node.stop()
}

/// An `s3s-fs` over a directory, ended when dropped.
struct S3Server {
    _process: Process,
    port: u16,
}

impl S3Server {
    fn start(root: &Path) -> Result<S3Server> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
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
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
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
}

fn measure(
    bench: &Bench,
    report: &mut Report,
    node: &Node,
    scheme: &str,
    uri: &str,
    options: &[String],
    operator: &Operator,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let top = format!("/{scheme}");
    let mut mount = vec!["mount", uri, &top];
    options.iter().for_each(|option| mount.extend(["-o", option]));
    bench.programs.cv(node, &mount)?;
    let mut all = (0.0, 0.0, 0);
    for (name, _, _) in OBJECTS {
        let directory = name.replace(' ', "-");
        let (mut plain, mut bytes) = (f64::MAX, 0);
        for depth in DEPTHS {
            let begun = Instant::now();
            bytes = runtime.block_on(plain_read(operator, &format!("{directory}/"), depth))?;
            plain = plain.min(begun.elapsed().as_secs_f64());
        }
        let loaded = load(bench, node, &format!("{top}/{directory}"), bytes)?;
        all = (all.0 + plain, all.1 + loaded, all.2 + bytes);
        add(
            report,
            &format!("{scheme}: objects of {name}"),
            bytes,
            loaded,
            plain,
            false,
        );
    }
    add(report, &format!("{scheme}: all"), all.2, all.1, all.0, true);
    Ok(())
}

fn add(report: &mut Report, what: &str, bytes: u64, loaded: f64, plain: f64, counts: bool) {
    let row = Row::new("load", what, bytes as f64 / 1e6 / loaded, "MB/s").beside(
        format!("plain GET, {:.0} MB/s", bytes as f64 / 1e6 / plain),
        plain / loaded,
    );
    report.add(if counts {
        row.target(Target::RatioAtLeast(0.6))
    } else {
        row
    });
}

/// Reads every object below a prefix and drops the bytes; says how many there were.
async fn plain_read(operator: &Operator, prefix: &str, depth: usize) -> Result<u64> {
    let entries: Vec<_> = operator.list(prefix).await?;
    let objects = entries.into_iter().filter(|entry| entry.metadata().is_file());
    futures::stream::iter(objects)
        .map(|entry| async move {
            let reader = operator.reader(entry.path()).await?;
            let mut stream = reader.into_bytes_stream(..).await?;
            let mut bytes = 0;
            while let Some(piece) = stream.try_next().await? {
                bytes += piece.len() as u64;
            }
            Ok(bytes)
        })
        .buffer_unordered(depth)
        .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
        .await
}

/// Loads a directory; says how many seconds the job ran.
fn load(bench: &Bench, node: &Node, path: &str, bytes: u64) -> Result<f64> {
    let answers = bench.programs.cv(node, &["load", path, "--watch"])?;
    let job = answers.last().context("a load answers with its job")?;
    ensure!(
        job["bytes_moved"].as_u64() == Some(bytes),
        "the load moved all {bytes} bytes: {job}"
    );
    let at = |field: &str| {
        job[field]
            .as_i64()
            .with_context(|| format!("no {field} in {job}"))
    };
    Ok((at("ended_ns")? - at("created_ns")?) as f64 / 1e9)
}
