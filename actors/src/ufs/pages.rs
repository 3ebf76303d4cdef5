//! Answers that are no store's: a page for people, with a status that says that all is well.
//!
//! A proxy that wants a login, or a console at the wrong endpoint, answers everything so. Taken for the store's, a listing would
//! be empty, and a write done. Stores name a version (`ETag`) where they answer with an object, which may be a page.

use http::header::{CONTENT_TYPE, ETAG};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, Result};

/// Takes pages for errors.
pub struct NoPages(pub HttpTransporter);

impl HttpTransport for NoPages {
    async fn fetch(&self, request: http::Request<Buffer>) -> Result<http::Response<HttpBody>> {
        let response = self.0.fetch(request).await?;
        match response.status().is_success() && is_page(response.headers()) {
            // As OpenDAL has the body of an answer that it cannot read.
            true => Err(Error::new(ErrorKind::Unexpected, "<html>")),
            false => Ok(response),
        }
    }
}

fn is_page(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html")) && !headers.contains_key(ETAG)
}
