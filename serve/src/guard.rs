//! A gRPC request's body within limits of time and memory; its size is tonic's business.

use crate::error::InferError;
use crate::state::Core;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

/// A body that must come in time, and whose bytes count among those of all bodies.
pub(crate) struct Guarded {
    body: Body,
    core: Arc<Core>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
    late: Pin<Box<Sleep>>,
}

impl Guarded {
    /// Guards a body from now on.
    pub fn new(body: Body, core: Arc<Core>) -> Self {
        let late = Box::pin(tokio::time::sleep(core.settings.limits.body_time));
        Self { body, core, held: None, bytes: 0, late }
    }

    /// Ends the body; tonic finds the status in the error.
    fn refuse<T>(&self, error: InferError) -> Poll<Option<Result<T, axum::Error>>> {
        self.core.answered("grpc_infer", Err(&error));
        Poll::Ready(Some(Err(axum::Error::new(tonic::Status::from(error)))))
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Pending => match this.late.as_mut().poll(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => this.refuse(InferError::SlowBody(this.core.settings.limits.body_time)),
            },
            Poll::Ready(Some(Ok(frame))) => {
                this.bytes += frame.data_ref().map_or(0, Bytes::len);
                match this.core.hold(&mut this.held, this.bytes) {
                    Ok(()) => Poll::Ready(Some(Ok(frame))),
                    Err(error) => this.refuse(error),
                }
            }
            done => done,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
