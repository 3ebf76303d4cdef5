//! What a node shows over HTTP: `/` for people, `/metrics` for Prometheus, `/healthz`, `/api/status` as JSON.
//!
//! Read-only. Every answer is bounded by a deadline, also when the master is not.

mod metrics;
mod page;

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use curvine_actors::kit::metrics::Of;
use curvine_actors::kit::{Endpoint, MasterPort, MasterRef, call};
use curvine_conf::WebAddress;
use curvine_protocol::cluster::ClusterStatus;
use curvine_protocol::master::{GetClusterStatus, ListMounts};
use curvine_protocol::mount::MountInfo;
use curvine_protocol::number::whole_ms;
use curvine_protocol::{Call, CallContext, Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const STATUS_DEADLINE: Duration = Duration::from_secs(3);

/// What the pages show.
#[derive(Clone)]
pub struct Shown {
    pub role: &'static str,
    pub master: MasterRef,
    /// Whose metrics.
    pub parts: Vec<Of>,
}

/// A running web server. Dropping it stops it.
pub struct Web {
    address: String,
    stop: CancellationToken,
}

impl Web {
    /// Takes the address. None if it is off, or if nobody chose the address and it is taken.
    ///
    /// # Errors
    /// `Busy` if the chosen address is in use.
    pub async fn listen(listen: &WebAddress, chosen: bool) -> Result<Option<TcpListener>> {
        let WebAddress::On(address) = listen else {
            return Ok(None);
        };
        match TcpListener::bind(address.as_str()).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                let next = "choose another with --web ADDR (port 0 picks a free one) or --web off";
                let message = format!("{address} is in use by another process; {next}");
                if chosen {
                    return Err(Error::new(ErrorKind::Busy, message));
                }
                tracing::warn!("no status page: {message}");
                Ok(None)
            }
            Err(error) => Err(Error::from(error).while_doing(format_args!("listening on {address} (--web)"))),
        }
    }

    /// Starts it in the current runtime.
    ///
    /// # Errors
    /// Of the system.
    pub fn start(listener: TcpListener, shown: Shown) -> Result<Self> {
        let address = listener.local_addr()?.to_string();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let routes = Router::new()
            .route("/", get(page))
            .route("/metrics", get(prometheus))
            .route("/healthz", get(health))
            .route("/api/status", get(status))
            .with_state(shown);
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes)
                .with_graceful_shutdown(stopped)
                .await
            {
                tracing::warn!(%error, "the status page has stopped");
            }
        });
        Ok(Web { address, stop })
    }

    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Asks the leader, as long as somebody who looks at a page waits.
async fn ask<C: Call>(shown: &Shown, question: C) -> Result<C::Reply>
where
    dyn MasterPort: Endpoint<C>,
{
    let context = CallContext {
        deadline_ms: whole_ms(STATUS_DEADLINE),
        ..CallContext::default()
    };
    let asked = call(&*shown.master, question, context);
    tokio::time::timeout(STATUS_DEADLINE, asked)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "the master does not answer")))
}

async fn cluster_status(shown: &Shown) -> Result<ClusterStatus> {
    ask(shown, GetClusterStatus {}).await
}

/// The cluster and its mounts, both asked at once.
async fn all(shown: &Shown) -> Result<(ClusterStatus, Vec<MountInfo>)> {
    let (status, mounts) = tokio::join!(cluster_status(shown), ask(shown, ListMounts {}));
    Ok((status?, mounts?.mounts))
}

async fn page(State(shown): State<Shown>) -> Html<String> {
    Html(page::render(shown.role, &all(&shown).await))
}

async fn prometheus(State(shown): State<Shown>) -> Response {
    let told = all(&shown).await.ok();
    let text = metrics::render(shown.role, &shown.parts, told.as_ref());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn health(State(shown): State<Shown>) -> Response {
    match cluster_status(&shown).await {
        Ok(_) => "ok\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn status(State(shown): State<Shown>) -> Response {
    match cluster_status(&shown).await {
        Ok(status) => axum::Json(status).into_response(),
        Err(error) => {
            let body = serde_json::json!({ "error": error.kind.name(), "message": error.message });
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
        }
    }
}
