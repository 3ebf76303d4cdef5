//! A tour of the client, against a node that runs: `cargo run -p curvine-actors --example tour -- 127.0.0.1:8995`

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use curvine_actors::client::{Client, ClientOptions, CreateOptions};
use curvine_protocol::mount::MountSettings;
use curvine_protocol::{CurvinePath, ErrorKind, Result};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<()> {
    let master = std::env::args().nth(1).unwrap_or("127.0.0.1:8995".to_owned());
    let bucket = tempfile::tempdir()?;
    tour(&master, bucket.path()).await
}

pub async fn tour(master: &str, bucket: &Path) -> Result<()> {
    // One client is one session; clone it freely, for any number of tasks.
    let client = Client::connect([master], ClientOptions::default()).await?;

    // Small files, whole.
    let hello: CurvinePath = "/tour/hello".parse()?;
    client
        .make_dir("/tour".parse::<CurvinePath>()?, 0o755, true)
        .await?;
    client.write(&hello, "Hello, world").await?;
    assert_eq!(&client.read(&hello).await?[..], b"Hello, world");

    // Large files, in pieces. `close` tells whether all of it is stored; dropping the file would not.
    let log: CurvinePath = "/tour/log".parse()?;
    let file = client.create(&log, CreateOptions::default()).await?;
    for i in 0..1_000 {
        file.append(format!("line {i:>5}\n").into()).await?;
    }
    file.write_at(0, "LINE".into()).await?;
    file.flush().await?; // from here on, whoever opens it sees this much
    file.append("the end\n".into()).await?;
    file.close().await?;

    // Reads at any offset, and streams with read-ahead.
    let file = client.open(&log).await?;
    assert_eq!(&file.read_at(11, 11).await?[..], b"line     1\n");
    let bytes = file
        .stream(0)
        .try_fold(0, async |sum, piece| Ok(sum + piece.len()))
        .await?;
    assert_eq!(bytes as u64, file.size().await);

    // Names and attributes. Errors are decided by kind.
    let names: Vec<String> = client
        .list(hello.parent().expect("it has one"))
        .map_ok(|entry| entry.name)
        .try_collect()
        .await?;
    assert_eq!(names, ["hello", "log"]);
    assert_eq!(client.stat(&log).await?.size_bytes, 11_008);
    let missing = client.stat("/tour/missing".parse::<CurvinePath>()?).await;
    assert_eq!(missing.map_err(|error| error.kind), Err(ErrorKind::NotFound));

    // An under file system: here a directory, in earnest `s3://bucket/prefix` with its options.
    std::fs::write(bucket.join("object"), "from the bucket")?;
    let data: CurvinePath = "/bucket".parse()?;
    let uri = format!("file://{}", bucket.display());
    client
        .mount(&data, &uri, BTreeMap::new(), MountSettings::default())
        .await?;
    assert_eq!(&client.read(data.join("object")?).await?[..], b"from the bucket");

    // Load it ahead: a durable job, which goes on without us.
    let mut job = client.submit_load(vec![data.clone()]).await?;
    while !job.state.is_ended() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        job = client.job(job.id).await?;
    }
    assert_eq!((job.progress.files_total, job.progress.files_failed), (1, 0));
    client.unmount(&data, false).await?;

    client.delete(hello.parent().expect("it has one"), true).await?;
    // Gives leases back at once; a client that just vanishes keeps them for up to a minute.
    client.close().await;
    Ok(())
}
