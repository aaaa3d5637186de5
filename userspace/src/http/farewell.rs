//! How a gRPC stream ends that egret cuts off: with a status and the reason in its trailers, which its
//! client shows, where a reset would say nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, Version};
use tokio::sync::oneshot;

use super::refuse::{grpc_trailers, is_grpc};
use super::upload::UploadState;
use crate::outcome::Reason;

/// Why a stream ends.
#[derive(Debug)]
pub struct Over {
    pub reason: Reason,
    pub message: Option<String>,
}

impl Over {
    pub(super) fn trailers(&self) -> HeaderMap {
        grpc_trailers(self.reason, self.message.as_deref())
    }
}

/// For one answer that is on its way to a gRPC client.
#[derive(Debug)]
pub struct Farewell {
    told: Option<oneshot::Receiver<Over>>,
    upload: Arc<UploadState>,
}

impl Farewell {
    /// For an answer with these headers to a request of this version, whose body is `upload`; and
    /// the one who can end it. `None` where no gRPC client reads it.
    pub fn of(
        answer: &HeaderMap,
        version: Version,
        upload: &Arc<UploadState>,
    ) -> Option<(oneshot::Sender<Over>, Self)> {
        (version == Version::HTTP_2 && is_grpc(answer)).then(|| {
            let (tell, told) = oneshot::channel();
            (tell, Self { told: Some(told), upload: Arc::clone(upload) })
        })
    }

    /// Ready when somebody ended it.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let Some(told) = &mut self.told else { return Poll::Pending };
        match Pin::new(told).poll(cx) {
            Poll::Ready(Ok(over)) => Poll::Ready(over),
            Poll::Ready(Err(_)) => {
                self.told = None; // nobody will
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Why the answer broke off, where egret has cut the request's body.
    pub(super) fn fault(&self) -> Option<Over> {
        self.upload.fault().map(|reason| Over { reason, message: None })
    }

    /// Ends the request as well, which would go on beside an answer that has ended in good order.
    pub(super) fn end(self, reason: Reason) {
        self.upload.cut(reason);
    }
}
