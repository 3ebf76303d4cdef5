//! An object store that takes its time: as much of S3 as a mount and its loads ask for, over objects that are all alike.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

static PIECE: [u8; 64 << 10] = [7; 64 << 10];

/// It serves as long as the test's process lives.
pub struct SlowStore {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// The objects of the bucket, by key, and their sizes.
    objects: BTreeMap<String, u64>,
    /// A pause after each piece of an answer.
    pause_ms: AtomicU64,
    sent_bytes: AtomicU64,
    /// Answers to GETs of objects that are on their way.
    sending: AtomicU64,
}

impl SlowStore {
    /// Serves `count` objects of a size, which take `pause_ms` for each 64 KiB.
    pub fn start(count: usize, size_bytes: u64, pause_ms: u64) -> SlowStore {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let shared = Arc::new(Shared {
            objects: (0..count)
                .map(|number| (format!("d/{number:03}"), size_bytes))
                .collect(),
            pause_ms: AtomicU64::new(pause_ms),
            sent_bytes: AtomicU64::new(0),
            sending: AtomicU64::new(0),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = serving.clone();
                // Whoever asked may be gone: there is nobody to tell.
                std::thread::spawn(move || drop(shared.serve(&connection)));
            }
        });
        SlowStore { address, shared }
    }

    pub fn uri(&self) -> &'static str {
        "s3://bucket"
    }

    pub fn options(&self) -> BTreeMap<String, String> {
        let options = [
            ("endpoint", format!("http://{}", self.address)),
            ("region", "us-east-1".to_owned()),
            ("access_key_id", "somebody".to_owned()),
            ("secret_access_key", "secret".to_owned()),
        ];
        options.map(|(name, value)| (name.to_owned(), value)).into()
    }

    pub fn hurry(&self) {
        self.shared.pause_ms.store(0, Ordering::Release);
    }

    pub fn sent_bytes(&self) -> u64 {
        self.shared.sent_bytes.load(Ordering::Acquire)
    }

    pub fn sending(&self) -> u64 {
        self.shared.sending.load(Ordering::Acquire)
    }
}

impl Shared {
    fn serve(&self, connection: &TcpStream) -> std::io::Result<()> {
        connection.set_nodelay(true)?;
        let mut lines = BufReader::new(connection).lines();
        while let Some(request) = lines.next().transpose()? {
            let mut range = None;
            for header in lines.by_ref() {
                let header = header?.to_ascii_lowercase();
                if header.is_empty() {
                    break;
                }
                range = range.or_else(|| header.strip_prefix("range: bytes=").map(str::to_owned));
            }
            let mut words = request.split(' ');
            let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            match path.strip_prefix("/bucket/").filter(|key| !key.is_empty()) {
                None => respond(connection, "200 OK", "", &self.listing(query))?,
                Some(key) => self.object(connection, method, key, range.as_deref())?,
            }
        }
        Ok(())
    }

    fn listing(&self, query: &str) -> String {
        let prefix = query
            .split('&')
            .find_map(|word| word.strip_prefix("prefix="))
            .unwrap_or("");
        let prefix = prefix.replace("%2F", "/");
        let mut xml = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
        if prefix.is_empty() {
            xml += "<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>";
        }
        for (key, size) in self
            .objects
            .iter()
            .filter(|(key, _)| !prefix.is_empty() && key.starts_with(&prefix))
        {
            let _ = write!(
                xml,
                "<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>\
                 <ETag>\"e{size}\"</ETag><Size>{size}</Size></Contents>"
            );
        }
        xml + "</ListBucketResult>"
    }

    fn object(
        &self,
        connection: &TcpStream,
        method: &str,
        key: &str,
        range: Option<&str>,
    ) -> std::io::Result<()> {
        let Some(&size) = self.objects.get(key) else {
            return respond(
                connection,
                "404 Not Found",
                "",
                "<Error><Code>NoSuchKey</Code></Error>",
            );
        };
        let part = range.map(|range| part_of(range, size));
        let Range { start, end } = part.clone().unwrap_or(0..size);
        let head = format!(
            "ETag: \"e{size}\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: {}\r\n{}",
            end - start,
            part.as_ref().map_or(String::new(), |part| format!(
                "Content-Range: bytes {start}-{}/{size}\r\n",
                part.end - 1
            )),
        );
        let status = if part.is_some() {
            "206 Partial Content"
        } else {
            "200 OK"
        };
        let mut to = connection;
        write!(to, "HTTP/1.1 {status}\r\n{head}\r\n")?;
        if method == "HEAD" {
            return Ok(());
        }
        self.sending.fetch_add(1, Ordering::AcqRel);
        let sent = self.send(connection, end - start);
        self.sending.fetch_sub(1, Ordering::AcqRel);
        sent
    }

    fn send(&self, mut to: &TcpStream, mut left: u64) -> std::io::Result<()> {
        while left > 0 {
            let piece = &PIECE[..PIECE.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            to.write_all(piece)?;
            left -= piece.len() as u64;
            self.sent_bytes.fetch_add(piece.len() as u64, Ordering::AcqRel);
            std::thread::sleep(Duration::from_millis(self.pause_ms.load(Ordering::Acquire)));
        }
        Ok(())
    }
}

/// What `start-last` means of an object of this size.
fn part_of(range: &str, size: u64) -> Range<u64> {
    let (start, last) = range.split_once('-').unwrap_or((range, ""));
    let start = start.parse().unwrap_or(0);
    start..last.parse::<u64>().map_or(size, |last| (last + 1).min(size))
}

fn respond(mut to: &TcpStream, status: &str, headers: &str, body: &str) -> std::io::Result<()> {
    write!(
        to,
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
