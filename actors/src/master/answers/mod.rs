//! Calls that are not the namespace's: one file for each family, each with the narrow ports that it uses.
//!
//! They own nothing: workers and locations are the `BlockMap`'s, mounts and jobs are in the namespace, running loads are a
//! duty's. Calls are answered on the caller's thread: a mailbox in between would own nothing and cost two hops a call.

pub mod cluster;
pub mod jobs;
pub mod mounts;
pub mod news;
mod pins;
#[cfg(test)]
mod tests;
pub mod workers;

use std::future::Future;
use std::sync::Arc;

use curvine_protocol::{Call, CallContext, Result};
use futures::future::BoxFuture;

use crate::kit::metrics::{Measured, timed};
use crate::kit::{Answer, Ask, Endpoint};

/// Whoever answers a call of its family.
pub trait Answers<C: Call>: Send + Sync + 'static {
    fn answer(
        self: Arc<Self>,
        call: C,
        context: CallContext,
    ) -> impl Future<Output = Result<C::Reply>> + Send;
}

/// A family of calls as an endpoint. Cheap to clone.
pub struct Family<T>(Arc<T>);

impl<T> Family<T> {
    pub fn new(answers: T) -> Self {
        Family(Arc::new(answers))
    }
}

impl<T> Clone for Family<T> {
    fn clone(&self) -> Self {
        Family(self.0.clone())
    }
}

impl<C: Measured, T: Answers<C>> Endpoint<C> for Family<T> {
    fn ask(&self, ask: Ask<C>) -> BoxFuture<'static, Result<Answer<C>>> {
        let answers = self.0.clone();
        Box::pin(timed::<C, _>(async move {
            answers.answer(ask.call, ask.context).await.map(Answer::new)
        }))
    }
}
