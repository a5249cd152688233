//! A pod: tonic's own health service, which counts its calls.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::{sync::watch, task::JoinSet};
use tonic::{
    Request,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::support::{Node, Result};

/// A gRPC server on an address of the node.
pub(crate) struct Pod {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    pub(crate) calls: Arc<AtomicU64>,
    pub(crate) sigterm: watch::Sender<()>,
}

impl Pod {
    pub(crate) fn start(
        name: &'static str,
        node: &mut Node,
        running: &mut JoinSet<()>,
    ) -> Result<Self> {
        let (addr, calls) = (node.address(8080)?, Arc::<AtomicU64>::default());
        let (incoming, count) = (TcpIncoming::bind(addr)?, Arc::clone(&calls));
        let (sigterm, mut told) = watch::channel(());
        let health = HealthService::from_health_reporter(HealthReporter::new());
        let health = HealthServer::with_interceptor(health, move |call: Request<()>| {
            count.fetch_add(1, Relaxed);
            Ok(call)
        });
        running.spawn(async move {
            let stop = async move { drop(told.changed().await) };
            // It serves until it is told to stop, or dropped with the program.
            let _ = Server::builder()
                .add_service(health)
                .serve_with_incoming_shutdown(incoming.with_nodelay(Some(true)), stop)
                .await;
        });
        Ok(Self {
            name,
            addr,
            calls,
            sigterm,
        })
    }
}
