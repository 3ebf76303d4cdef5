//! Uploads in parts that fail: each is known by the id that the store gave it, and is aborted by that alone.
//!
//! OpenDAL keeps the id to itself. So it is read from the store's answer on its way in, and
//! [noted](super::upload_notes) before OpenDAL sees it and sends the first part. After a crash OpenDAL is had to begin
//! the same upload again: of what it sends then, nothing leaves this node but the request that aborts it. So that
//! request goes where the others went, and is signed as they were, whatever the store and its credentials.
//!
//! Nothing is ever listed: other programs have uploads in the same bucket.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use curvine_protocol::{Error, ErrorKind, MountId, Result};
use http::header::ETAG;
use opendal::raw::ServiceOperation;
use opendal::{Buffer, HttpBody, HttpTransport, HttpTransporter, Operator};
use quick_xml::escape::escape;
use serde::Deserialize;

use super::answer::Answer;
use super::upload_notes::{Note, Upload, UploadNotes};
use super::{Ufs, through};

/// Services that are asked in a dialect of S3, by OpenDAL's names.
const DIALECTS: &[&str] = &["s3", "oss", "cos", "obs", "gcs"];
/// What stores say of an upload that has ended.
const GONE: &[&str] = &["NoSuchUpload", "NoSuchKey"];

/// Where a mount's uploads are noted.
#[derive(Clone)]
pub(super) struct Noted {
    pub notes: UploadNotes,
    pub mount: MountId,
}

/// The requests of the dialects of S3, by the names that OpenDAL gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Begin,
    Part,
    Abort,
    /// Something else about an object.
    Other,
    /// Nothing of the store's: credentials, for example.
    Elsewhere,
}

fn asked(request: &http::Request<Buffer>) -> Asked {
    match request.extensions().get::<ServiceOperation>() {
        None => Asked::Elsewhere,
        Some(ServiceOperation("CreateMultipartUpload" | "InitiateMultipartUpload")) => Asked::Begin,
        Some(ServiceOperation("UploadPart")) => Asked::Part,
        Some(ServiceOperation("AbortMultipartUpload")) => Asked::Abort,
        Some(_) => Asked::Other,
    }
}

/// The uploads that one write has begun: one, or more where an answer was lost on its way and the store was asked
/// again.
#[derive(Clone, Default)]
pub(super) struct Begun {
    notes: Arc<Mutex<Vec<Note>>>,
}

impl Begun {
    fn push(&self, note: Note) {
        let mut notes = self.notes.lock().expect("no thread panics while it holds this");
        notes.push(note);
    }

    /// The store has completed the last of them. The others are given up.
    pub async fn completed(&self) {
        let last = {
            let mut notes = self.notes.lock().expect("no thread panics while it holds this");
            std::mem::take(&mut *notes).pop()
        };
        if let Some(last) = last {
            last.ended().await;
        }
    }
}

/// Sends the requests of one write, and notes what it begins.
struct Noting {
    inner: HttpTransporter,
    noted: Noted,
    uri: String,
    key: String,
    begun: Begun,
}

impl HttpTransport for Noting {
    async fn fetch(&self, request: http::Request<Buffer>) -> opendal::Result<http::Response<HttpBody>> {
        let begins = asked(&request) == Asked::Begin;
        let response = self.inner.fetch(request).await?;
        if !begins || !response.status().is_success() {
            return Ok(response);
        }
        let (head, mut body) = response.into_parts();
        let body = body.to_buffer().await?;
        // Without an id OpenDAL sends no part either.
        if let Some(id) = id_in(&body.to_bytes()) {
            let upload = Upload {
                mount: self.noted.mount,
                uri: self.uri.clone(),
                key: self.key.clone(),
                id,
            };
            match self.noted.notes.begun(upload).await {
                Ok(note) => self.begun.push(note),
                // To refuse it would not help: it may be the export that frees a full disk.
                Err(error) => tracing::warn!(
                    "{}: an upload of `{}` is not noted, and would stay in the store after a crash: {error}",
                    self.uri,
                    self.key
                ),
            }
        }
        Ok(http::Response::from_parts(head, whole(body)))
    }
}

/// Lets nothing through to the store but the request that aborts an upload, and answers the rest itself.
struct AbortAlone {
    inner: HttpTransporter,
    id: String,
    /// What the store answered; 0 until it has.
    status: Arc<AtomicU16>,
}

impl HttpTransport for AbortAlone {
    async fn fetch(&self, request: http::Request<Buffer>) -> opendal::Result<http::Response<HttpBody>> {
        let answer = |body: String| {
            let response = http::Response::builder().header(ETAG, "\"not-sent\"");
            response.body(whole(Buffer::from(body))).map_err(|error| {
                opendal::Error::new(opendal::ErrorKind::Unexpected, "an answer cannot be made")
                    .set_source(error)
            })
        };
        match asked(&request) {
            Asked::Elsewhere => self.inner.fetch(request).await,
            Asked::Begin => answer(begun_with(&self.id)),
            Asked::Part => answer(String::new()),
            Asked::Abort => {
                let response = self.inner.fetch(request).await?;
                self.status.store(response.status().as_u16(), Ordering::Release);
                Ok(response)
            }
            Asked::Other => Err(cannot_abort()),
        }
    }
}

fn whole(body: Buffer) -> HttpBody {
    let size = body.len() as u64;
    HttpBody::new(futures::stream::iter([Ok(body)]), Some(size))
}

/// What answers a request that begins an upload.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BegunUpload {
    upload_id: String,
}

fn id_in(answer: &[u8]) -> Option<String> {
    let begun: BegunUpload = quick_xml::de::from_reader(answer).ok()?;
    Some(begun.upload_id).filter(|id| !id.is_empty())
}

fn begun_with(id: &str) -> String {
    let id = escape(id);
    format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>")
}

impl Ufs {
    /// The same under file system, which notes the uploads that it begins.
    pub fn noting(mut self, notes: UploadNotes, mount: MountId) -> Ufs {
        self.noted = Some(Noted { notes, mount });
        self
    }

    /// The operator for one write. What it begins is noted, if this node notes uploads at all.
    pub(super) fn writing(&self, key: &str, begun: &Begun) -> Operator {
        let Some(noted) = &self.noted else {
            return self.operator.clone();
        };
        through(&self.operator, |inner| Noting {
            inner,
            noted: noted.clone(),
            uri: self.uri.clone(),
            key: key.to_owned(),
            begun: begun.clone(),
        })
    }

    /// Aborts this upload and no other. Whether the store still had it.
    ///
    /// # Errors
    /// `NotFound` if it is of another bucket than this, or the bucket is gone: nobody can abort it; those of the store.
    pub async fn abort_upload(&self, upload: &Upload) -> Result<bool> {
        if upload.uri != self.uri {
            let words = format!("{}: the mount is of {} by now", upload.uri, self.uri);
            return Err(Error::new(ErrorKind::NotFound, words));
        }
        if !DIALECTS.contains(&self.operator.info().scheme()) {
            return Err(self.fault(&upload.key, cannot_abort()));
        }
        self.answered(&upload.key, self.abort_now(upload)).await
    }

    async fn abort_now(&self, upload: &Upload) -> Result<bool> {
        let status = Arc::new(AtomicU16::new(0));
        let operator = through(&self.operator, |inner| AbortAlone {
            inner,
            id: upload.id.clone(),
            status: status.clone(),
        });
        let path = self.storable(&upload.key)?;
        let aborted = async {
            let mut writer = operator.writer(&path).await?;
            // The first part begins the upload once a second one follows it.
            let part_bytes = operator.info().capability().write_multi_min_size.unwrap_or(1);
            for _ in 0..2 {
                writer.write(zeros(part_bytes)).await?;
            }
            writer.abort().await
        };
        let aborted = aborted.await;
        let was_asked = status.load(Ordering::Acquire) != 0;
        match aborted {
            Ok(()) if was_asked => Ok(true),
            Ok(()) => Err(self.fault(&upload.key, cannot_abort())),
            Err(error) if was_asked && Answer::of(&error).is_one_of(GONE) => Ok(false),
            Err(error) => Err(self.fault(&upload.key, error)),
        }
    }
}

/// Content that is not sent.
fn zeros(count: usize) -> Buffer {
    Buffer::from(vec![0; count])
}

fn cannot_abort() -> opendal::Error {
    opendal::Error::new(
        opendal::ErrorKind::Unsupported,
        "this store cannot be asked to abort an upload",
    )
}

#[cfg(test)]
#[path = "uploads_tests.rs"]
mod tests;
