//! For tests: an S3 server of a few lines, which lists as slowly, lies as badly, and refuses as much, as a test wants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How a listing goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It says "more", and not from where.
    MoreWithoutToken,
    /// As that, and no page has anything in it.
    EmptyPages,
    /// Always the same token.
    SameToken,
}

#[derive(Clone)]
pub struct Store {
    pub endpoint: String,
    state: Arc<State>,
}

struct State {
    objects: Mutex<BTreeMap<String, String>>,
    page_keys: usize,
    lie: Option<Lie>,
    /// A permit is taken for each page that is not the answer to a look whether anything is there.
    pages: Semaphore,
    asked: Mutex<Vec<String>>,
    /// Uploads in parts that are under way: the key of each id. Of parts nothing is kept.
    uploads: Mutex<BTreeMap<String, String>>,
    /// The marks of the objects that have one.
    marks: Mutex<BTreeMap<String, String>>,
    faults: Mutex<Vec<Fault>>,
}

/// What befalls requests.
struct Fault {
    /// They have this in their first line.
    what: String,
    how: Befalls,
    /// So many are spared.
    after: usize,
    times: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Befalls {
    Refused,
    /// Their condition is said not to hold, whatever it is.
    Unmet,
    /// What is asked for is done, and the connection closed without a word.
    Lost,
    /// Somebody else puts an object at its key right before it.
    Overtaken,
}

/// Headers of a request.
#[derive(Default)]
struct Asking {
    body_bytes: usize,
    copied: Option<String>,
    mark: Option<String>,
    if_match: Option<String>,
    if_none_match: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

impl Store {
    /// A bucket with these keys, which answers with so many at once. It lists as many pages as it is told to.
    pub async fn start(keys: impl IntoIterator<Item = String>, page_keys: usize, lie: Option<Lie>) -> Store {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("is bound");
        let state = Arc::new(State {
            objects: Mutex::new(keys.into_iter().map(|key| (key, "etag".to_owned())).collect()),
            page_keys,
            lie,
            pages: Semaphore::new(0),
            asked: Mutex::default(),
            uploads: Mutex::default(),
            marks: Mutex::default(),
            faults: Mutex::default(),
        });
        let served = state.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, served.clone()));
            }
        });
        Store {
            endpoint: format!("http://{address}"),
            state,
        }
    }

    pub fn options(&self) -> BTreeMap<String, String> {
        [
            ("endpoint", self.endpoint.as_str()),
            ("access_key_id", "id"),
            ("secret_access_key", "key"),
            ("disable_config_load", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// Lets so many more pages be listed.
    pub fn list_pages(&self, pages: usize) {
        self.state.pages.add_permits(pages);
    }

    pub fn put(&self, key: &str, etag: &str) {
        locked(&self.state.marks).remove(key);
        locked(&self.state.objects).insert(key.to_owned(), etag.to_owned());
    }

    pub fn delete(&self, key: &str) {
        locked(&self.state.objects).remove(key);
    }

    /// The same, as an export writes it.
    pub fn put_marked(&self, key: &str, etag: &str, mark: &str) {
        locked(&self.state.marks).insert(key.to_owned(), mark.to_owned());
        locked(&self.state.objects).insert(key.to_owned(), etag.to_owned());
    }

    pub fn keys(&self) -> Vec<String> {
        locked(&self.state.objects).keys().cloned().collect()
    }

    /// Denies the next requests in whose first line this is.
    pub fn refuse(&self, what: &str, times: usize) {
        self.befall(what, Befalls::Refused, 0, times);
    }

    /// What befalls so many requests in whose first line this is, when some others were spared.
    pub fn befall(&self, what: &str, how: Befalls, after: usize, times: usize) {
        let what = what.to_owned();
        locked(&self.state.faults).push(Fault {
            what,
            how,
            after,
            times,
        });
    }

    /// As another program does: begins an upload in parts, and says its id.
    pub fn begin_upload(&self, key: &str) -> String {
        self.state.begin_upload(key)
    }

    /// The keys and ids of the uploads under way.
    pub fn uploads(&self) -> Vec<(String, String)> {
        let uploads = locked(&self.state.uploads);
        uploads
            .iter()
            .map(|(id, key)| (key.clone(), id.clone()))
            .collect()
    }

    /// How many requests began with this: a method, a space and the beginning of a path, or a part of a query.
    pub fn asked(&self, what: &str) -> usize {
        let asked = locked(&self.state.asked);
        asked.iter().filter(|request| request.contains(what)).count()
    }
}

impl State {
    /// The ids have in them what must be escaped in XML and in URLs.
    fn begin_upload(&self, key: &str) -> String {
        let mut uploads = locked(&self.uploads);
        let id = format!("i/d+{}&=<x>", uploads.len());
        uploads.insert(id.clone(), key.to_owned());
        id
    }

    fn befalls(&self, request: &str) -> Option<Befalls> {
        let mut faults = locked(&self.faults);
        let fault = faults
            .iter_mut()
            .find(|fault| fault.times > 0 && request.contains(&fault.what))?;
        match fault.after.checked_sub(1) {
            Some(left) => {
                fault.after = left;
                None
            }
            None => {
                fault.times -= 1;
                Some(fault.how)
            }
        }
    }

    /// The answer to a request of an upload in parts; none to any other.
    fn answer_upload(&self, method: &str, key: &str, query: &str) -> Option<(&'static str, String)> {
        if method == "POST" && query == "uploads" {
            let id = self.begin_upload(key);
            let id = id.replace('&', "&amp;").replace('<', "&lt;");
            let body = format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            return Some(("200 OK", body));
        }
        let (_, id) = query.split_once("uploadId=")?;
        let id = urlencoding::decode(id).expect("UTF-8").into_owned();
        let mut uploads = locked(&self.uploads);
        if uploads.get(&id).map(String::as_str) != Some(key) {
            return Some((
                "404 Not Found",
                "<Error><Code>NoSuchUpload</Code></Error>".to_owned(),
            ));
        }
        if method == "PUT" {
            return Some(("200 OK", String::new()));
        }
        uploads.remove(&id);
        if method == "DELETE" {
            return Some(("204 No Content", String::new()));
        }
        locked(&self.objects).insert(key.to_owned(), "etag".to_owned());
        let body = "<CompleteMultipartUploadResult><ETag>\"etag\"</ETag></CompleteMultipartUploadResult>";
        Some(("200 OK", body.to_owned()))
    }
}

async fn serve(connection: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    loop {
        let mut request = String::new();
        if connection.read_line(&mut request).await? == 0 {
            return Ok(());
        }
        let mut asking = Asking::default();
        let mut header = String::new();
        while connection.read_line(&mut header).await? > 2 {
            let (name, value) = header.split_once(':').expect("a header");
            let value = value.trim().to_owned();
            match &*name.to_ascii_lowercase() {
                "content-length" => asking.body_bytes = value.parse().expect("a number"),
                "x-amz-copy-source" => asking.copied = Some(value),
                "x-amz-meta-curvine-content" => asking.mark = Some(value),
                "if-match" => asking.if_match = Some(value.trim_matches('"').to_owned()),
                "if-none-match" => asking.if_none_match = true,
                _ => {}
            }
            header.clear();
        }
        connection.read_exact(&mut vec![0; asking.body_bytes]).await?;
        locked(&state.asked).push(request.trim().to_owned());
        let befalls = state.befalls(&request);
        asking.mark = asking.mark.or_else(|| {
            let copied = urlencoding::decode(asking.copied.as_deref()?)
                .expect("UTF-8")
                .into_owned();
            let copied = copied.trim_start_matches('/').trim_start_matches("bucket/");
            locked(&state.marks).get(copied).cloned()
        });
        let (head, body) = answer(&request, asking, befalls, &state).await;
        if befalls == Some(Befalls::Lost) {
            return Ok(());
        }
        connection.write_all(head.as_bytes()).await?;
        connection.write_all(body.as_bytes()).await?;
        connection.flush().await?;
    }
}

async fn answer(request: &str, asking: Asking, befalls: Option<Befalls>, state: &State) -> (String, String) {
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let with_body = |head: &str, body: String| {
        let length = body.len();
        (
            format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\netag: \"etag\"\r\n\r\n"),
            body,
        )
    };
    if befalls == Some(Befalls::Refused) {
        let denied = "<Error><Code>AccessDenied</Code><Message>it is a test</Message></Error>";
        return with_body("403 Forbidden", denied.to_owned());
    }
    if !query.contains("list-type=2") {
        let key = urlencoding::decode(path.trim_start_matches("/bucket/"))
            .expect("UTF-8")
            .into_owned();
        if let Some((head, body)) = state.answer_upload(method, &key, query) {
            return with_body(head, body);
        }
        let done = |head: &str| {
            (
                format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\netag: \"etag\"\r\n\r\n"),
                String::new(),
            )
        };
        let mut objects = locked(&state.objects);
        if befalls == Some(Befalls::Overtaken) {
            objects.insert(key.clone(), "theirs".to_owned());
        }
        if befalls == Some(Befalls::Unmet) {
            return done("412 Precondition Failed");
        }
        match method {
            "PUT" => {
                let there = objects.get(&key);
                let is_meant = asking.if_match.is_none_or(|meant| there == Some(&meant));
                if !is_meant || (asking.if_none_match && there.is_some()) {
                    return done("412 Precondition Failed");
                }
                match asking.mark {
                    Some(mark) => drop(locked(&state.marks).insert(key.clone(), mark)),
                    None => drop(locked(&state.marks).remove(&key)),
                }
                objects.insert(key, "etag".to_owned());
                return done("200 OK");
            }
            "DELETE" => {
                objects.remove(&key);
                return done("204 No Content");
            }
            _ => {}
        }
        let mark = locked(&state.marks).get(&key).cloned();
        let mark = mark.map_or_else(String::new, |mark| {
            format!("x-amz-meta-curvine-content: {mark}\r\n")
        });
        return match objects.get(&key).cloned() {
            Some(etag) => (
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n{mark}etag: \"{etag}\"\r\n\r\n"
                ),
                if method == "HEAD" {
                    String::new()
                } else {
                    "four".to_owned()
                },
            ),
            None => (
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                String::new(),
            ),
        };
    }
    let of = |name: &str| {
        let value = query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.map(|value| urlencoding::decode(value).expect("UTF-8").into_owned())
    };
    if of("max-keys").is_none() {
        state.pages.acquire().await.expect("is not closed").forget();
    }
    let body = page(
        state,
        &of("prefix").unwrap_or_default(),
        of("continuation-token").as_deref(),
    );
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    (head, body)
}

/// A page of what is directly below a prefix, after a token.
fn page(state: &State, prefix: &str, token: Option<&str>) -> String {
    let mut names: Vec<(String, Option<String>)> = Vec::new();
    for (key, etag) in &*locked(&state.objects) {
        let Some(rest) = key.strip_prefix(prefix) else {
            continue;
        };
        let (name, etag) = match rest.find('/') {
            Some(slash) => (format!("{prefix}{}", &rest[..=slash]), None),
            None => (key.clone(), Some(etag.clone())),
        };
        if names.last().is_none_or(|(last, _)| *last != name) {
            names.push((name, etag));
        }
    }
    let after = token.filter(|_| state.lie.is_none());
    let mut left = names
        .into_iter()
        .filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
    let listed: Vec<_> = left.by_ref().take(state.page_keys).collect();
    let next = match (state.lie, listed.last()) {
        (Some(Lie::MoreWithoutToken | Lie::EmptyPages), _) => Some(String::new()),
        (Some(Lie::SameToken), _) => Some("<NextContinuationToken>same</NextContinuationToken>".to_owned()),
        (None, Some((last, _))) if left.next().is_some() => {
            Some(format!("<NextContinuationToken>{last}</NextContinuationToken>"))
        }
        (None, _) => None,
    };
    let mut body = format!("<ListBucketResult><IsTruncated>{}</IsTruncated>", next.is_some());
    for (name, etag) in listed.iter().filter(|_| state.lie != Some(Lie::EmptyPages)) {
        match etag {
            Some(etag) => body.push_str(&format!(
                "<Contents><Key>{name}</Key><Size>4</Size><ETag>\"{etag}\"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            )),
            None => body.push_str(&format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>")),
        }
    }
    body + &next.unwrap_or_default() + "</ListBucketResult>"
}
