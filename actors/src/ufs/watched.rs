//! A listing's requests, watched: a store that answers the same question again and again is given up.
//!
//! OpenDAL asks for the next page by the token of the last one. A store that says "more" without a token, or repeats one,
//! would be asked for ever, and where its pages are empty nobody above would see it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, Result};

/// A page may have come whole and yet be broken: OpenDAL then asks for it once more.
const ANSWERS_MAX: u32 = 2;

/// Sends the requests of one listing.
pub struct Watched {
    inner: HttpTransporter,
    seen: Seen,
}

impl Watched {
    pub fn new(inner: HttpTransporter) -> Self {
        Watched {
            inner,
            seen: Seen::default(),
        }
    }
}

/// How often each question was answered.
#[derive(Clone, Default)]
struct Seen {
    hasher: RandomState,
    answers: Arc<Mutex<HashMap<u64, u32>>>,
}

impl Seen {
    fn answers(&self, question: &str) -> u32 {
        let answers = self.answers.lock().expect("no thread panics while it holds this");
        answers.get(&self.hasher.hash_one(question)).copied().unwrap_or(0)
    }

    fn answered(&self, question: &str) {
        let mut answers = self.answers.lock().expect("no thread panics while it holds this");
        *answers.entry(self.hasher.hash_one(question)).or_default() += 1;
    }
}

impl HttpTransport for Watched {
    async fn fetch(&self, request: http::Request<Buffer>) -> Result<http::Response<HttpBody>> {
        let question = (request.method() == http::Method::GET).then(|| request.uri().to_string());
        let Some(question) = question else {
            return self.inner.fetch(request).await;
        };
        if self.seen.answers(&question) >= ANSWERS_MAX {
            return Err(Error::new(
                ErrorKind::Unexpected,
                "the store says that the listing goes on, and answers with the same page again and again",
            ));
        }
        let response = self.inner.fetch(request).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        let seen = self.seen.clone();
        // Counts when the whole page has come: a page that was cut is asked for again.
        let count_at_end = move |pieces| {
            Box::new(Counted {
                pieces,
                end: Some((seen, question)),
            }) as Pieces
        };
        Ok(response.map(|body| body.map_inner(count_at_end)))
    }
}

type Pieces = Box<dyn futures::Stream<Item = Result<Buffer>> + Send + Sync + Unpin + 'static>;

/// The pieces of an answer; its end is noted.
struct Counted {
    pieces: Pieces,
    end: Option<(Seen, String)>,
}

impl futures::Stream for Counted {
    type Item = Result<Buffer>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let piece = std::task::ready!(std::pin::Pin::new(&mut self.pieces).poll_next(context));
        match &piece {
            Some(Ok(_)) => {}
            // Cut: it does not count.
            Some(Err(_)) => self.end = None,
            None => {
                if let Some((seen, question)) = self.end.take() {
                    seen.answered(&question);
                }
            }
        }
        std::task::Poll::Ready(piece)
    }
}
