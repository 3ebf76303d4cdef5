//! Answers that are no store's: a page for people, with a status that says that all is well.
//!
//! A proxy that wants a login, or a console at the wrong endpoint, answers everything so. Taken for the store's, a listing would
//! be empty, and a write done. Stores name a version (`ETag`) where they answer with an object, which may be a page; and they
//! have headers of their own.

use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, Result};

/// How headers begin that stores alone have, such as the number of the request.
const OF_STORES: [&str; 7] = [
    "x-amz",
    "x-goog",
    "x-guploader",
    "x-ms-",
    "x-oss-",
    "x-cos-",
    "x-obs-",
];

/// Takes pages for errors.
pub struct NoPages(pub HttpTransporter);

impl HttpTransport for NoPages {
    async fn fetch(&self, request: http::Request<Buffer>) -> Result<http::Response<HttpBody>> {
        let response = self.0.fetch(request).await?;
        let is_page = response.status() != StatusCode::NO_CONTENT && is_page(response.headers());
        match response.status().is_success() && is_page {
            // As OpenDAL has the body of an answer that it cannot read.
            true => Err(Error::new(ErrorKind::Unexpected, "<html>")),
            false => Ok(response),
        }
    }
}

fn is_page(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_of_store = |name: &http::HeaderName| {
        *name == ETAG || OF_STORES.iter().any(|begins| name.as_str().starts_with(begins))
    };
    kind.is_some_and(|kind| kind.starts_with("text/html")) && !headers.keys().any(is_of_store)
}
