//! Looks every few seconds whether each upstream takes connections, for the metric `upstream_up`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use portcullis_filters::State;
use portcullis_filters::route::{Endpoint, Upstream};
use tokio::net::TcpStream;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// Watches the upstreams of the configuration of the moment.
pub(crate) struct UpstreamWatch {
    state: Arc<State>,
}

impl UpstreamWatch {
    pub(crate) fn new(state: &Arc<State>) -> Self {
        Self { state: Arc::clone(state) }
    }

    async fn look(&self) {
        let snapshot = self.state.snapshot();
        for (name, upstream) in snapshot.routes().upstreams() {
            let up = takes_connections(upstream).await;
            self.state.metrics().set_upstream_up(name, up);
        }
    }
}

#[async_trait]
impl BackgroundService for UpstreamWatch {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            self.look().await;
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _ = shutdown.changed() => return,
            }
        }
    }
}

/// Whether any of its endpoints does.
async fn takes_connections(upstream: &Upstream) -> bool {
    for endpoint in &upstream.endpoints {
        if connects(endpoint, upstream.timeouts.connect).await {
            return true;
        }
    }
    false
}

async fn connects(endpoint: &Endpoint, within: Duration) -> bool {
    let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    matches!(tokio::time::timeout(within, connecting).await, Ok(Ok(_)))
}
