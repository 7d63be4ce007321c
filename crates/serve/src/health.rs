//! `grpc.health.v1.Health`, the standard health service that Kubernetes, Envoy and gRPC clients query.

use crate::error::InferError;
use crate::state::{Core, shortened};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tonic::codegen::tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Polling interval of a watched state.
const POLL: Duration = Duration::from_secs(1);

/// Maximum number of watchers, which need no token.
const WATCHERS: usize = 256;

/// The service.
pub(crate) struct HealthOf {
    core: Arc<Core>,
    slots: Arc<Semaphore>,
}

impl HealthOf {
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, slots: Arc::new(Semaphore::new(WATCHERS)) }
    }

    /// True for the server as a whole, its service and its model.
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || service == crate::guard::SERVICE || service == self.core.info.name
    }
}

async fn status(core: &Arc<Core>) -> ServingStatus {
    if core.ready().await.is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthOf {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !self.knows(service) {
            let service = shortened(service);
            return Err(Status::not_found(format!(
                "there is no service `{service}` here; ask for the whole server with an empty name, or for `{}`",
                crate::guard::SERVICE
            )));
        }
        Ok(Response::new(response(status(&self.core).await)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let busy = |_| InferError::Busy(format!("{WATCHERS} clients are already watching"));
        let slot = self.slots.clone().try_acquire_owned().map_err(busy)?;
        let known = self.knows(&request.get_ref().service);
        let (sender, receiver) = mpsc::channel(1);
        let core = self.core.clone();
        tokio::spawn(async move {
            let _until_done = slot;
            let mut last = None;
            loop {
                let now = if known { status(&core).await } else { ServingStatus::ServiceUnknown };
                if last != Some(now) && sender.send(Ok(response(now))).await.is_err() {
                    return;
                }
                last = Some(now);
                if !core.is_open() {
                    // The final state has been sent; shutdown does not wait for watchers.
                    return;
                }
                tokio::select! {
                    () = core.drained() => {}
                    () = tokio::time::sleep(POLL) => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
