//! The stage as a whole: heads, bodies and answers; and the helpers for that, credentials without
//! a policy file.

mod activate;
mod answers;
mod bodies;
mod hand_over;
mod heads;
mod turns;
mod upgraded;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::{Credential, CredentialSet};
use crate::policy::{CredentialKind, CredentialSpec, Host, HostPattern, OnCanary};
use crate::secrets::{Secret, SecretRef};

fn host(name: &str) -> Host {
    Host::parse(name).unwrap()
}

fn spec(name: &str, kind: CredentialKind, hosts: &[&str]) -> CredentialSpec {
    CredentialSpec {
        name: name.into(),
        secret: SecretRef::Env("TOKEN".into()),
        hosts: hosts.iter().map(|h| HostPattern::parse(h).unwrap()).collect(),
        kind,
        env: None,
        shape: None,
        on_canary: OnCanary::Deny,
    }
}

/// A set of credentials that are all bound to `api.test`: (name, kind, secret).
fn set(credentials: &[(&str, CredentialKind, &str)]) -> CredentialSet {
    let all = credentials.iter().map(|(name, kind, secret)| {
        let secret = Secret::new(secret.as_bytes().to_vec());
        let spec = Arc::new(spec(name, kind.clone(), &["api.test"]));
        Arc::new(Credential::new(spec, secret, None, &[]).unwrap())
    });
    CredentialSet::of(all.collect())
}

/// A body of these frames.
struct Frames(std::collections::VecDeque<Frame<Bytes>>);

impl Frames {
    fn of<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(chunks.into_iter().map(|c| Frame::data(Bytes::copy_from_slice(c))).collect())
    }

    /// `data` cut at `cuts` (taken modulo its length).
    fn cut(data: &[u8], cuts: &[usize]) -> Self {
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (data.len() + 1)).collect();
        cuts.extend([0, data.len()]);
        cuts.sort_unstable();
        Self::of(cuts.windows(2).map(|w| &data[w[0]..w[1]]))
    }

    fn trailers(mut self, name: &'static str, value: &str) -> Self {
        let map = [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect();
        self.0.push_back(Frame::trailers(map));
        self
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let left = self.0.iter().filter_map(Frame::data_ref).map(|d| d.len() as u64).sum();
        http_body::SizeHint::with_exact(left)
    }
}

/// Everything that came out of a body.
#[derive(Debug, Default)]
struct Collected {
    data: Vec<u8>,
    trailers: Option<::http::HeaderMap>,
    error: Option<super::BoxError>,
}

/// Reads a body that is always ready to its end.
fn collect<B>(body: B) -> Collected
where
    B: Body<Data = Bytes>,
    B::Error: Into<super::BoxError>,
{
    let mut body = std::pin::pin!(body);
    let mut all = Collected::default();
    loop {
        let hint = body.size_hint();
        let before = all.data.len();
        match body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(None) => return all,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    assert!(!data.is_empty(), "an empty frame is noise");
                    all.data.extend_from_slice(&data);
                    let grown = (all.data.len() - before) as u64;
                    assert!(hint.upper().is_none_or(|u| grown <= u), "more than the size hint");
                }
                Err(frame) => all.trailers = frame.into_trailers().ok(),
            },
            Poll::Ready(Some(Err(e))) => {
                all.error = Some(e.into());
                return all;
            }
            Poll::Pending => panic!("a ready body is pending"),
        }
    }
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(hay, needle).is_some()
}
