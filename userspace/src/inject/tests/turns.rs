//! Sides that take turns: what one of them says arrives before it says more, also where it ends as
//! something begins that is looked for.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{Method, Request, Response};
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use super::super::prepare;
use super::{host, set};
use crate::policy::CredentialKind::Bearer;

/// What is sent, as it is sent.
struct Said(mpsc::Receiver<Bytes>);

impl Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

/// Sends each piece when the one before has arrived, and returns all that came.
async fn talk<B>(pieces: &[&str], through: impl FnOnce(Said) -> B) -> Vec<u8>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let (sender, receiver) = mpsc::channel(1);
    let mut body = through(Said(receiver));
    let (mut said, mut got) = (0, Vec::new());
    for piece in pieces {
        sender.send(Bytes::copy_from_slice(piece.as_bytes())).await.unwrap();
        said += piece.len();
        while got.len() < said {
            let frame = tokio::time::timeout(Duration::from_secs(60), body.frame()).await;
            got.extend_from_slice(&frame.unwrap().unwrap().unwrap().into_data().unwrap());
        }
    }
    drop(sender);
    got.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    got
}

#[tokio::test]
async fn an_answer_that_ends_as_a_secret_begins_arrives() {
    let set = set(&[("b", Bearer, "pa55word-of-b")]);
    for (pieces, want) in [
        (&["one p", "two pa", "three"][..], "one ptwo pathree"),
        (&["one p", "a55", "word-of-b, two"], "one pa55*********, two"),
    ] {
        let scrubber = set.scrubber_for(&host("api.test")).unwrap();
        let mut head = Response::new(()).into_parts().0;
        let got = talk(pieces, |said| scrubber.response(&Method::GET, &mut head, said)).await;
        let got = String::from_utf8(got).unwrap().replace(['#', '!', '_'], "*");
        assert_eq!(got, want);
    }
}

#[tokio::test]
async fn a_request_that_ends_as_a_placeholder_begins_arrives() {
    let set = set(&[("b", Bearer, "pa55word-of-b")]);
    let placeholder = set.all()[0].placeholder.to_string();
    let mut head = Request::post("/").body(()).unwrap().into_parts().0;
    let injection = prepare(&set, &[], &host("api.test"), &mut head).unwrap();
    let first = &placeholder[..1];
    for pieces in [[first, "x"], ["one", &placeholder[..20]]] {
        let got = talk(&pieces, |said| injection.request_body(said)).await;
        assert_eq!(String::from_utf8(got).unwrap(), pieces.concat());
    }
    // To a host that it is not bound to, a placeholder in pieces is still one.
    let mut head = Request::post("/").body(()).unwrap().into_parts().0;
    let injection = prepare(&set, &[], &host("evil.test"), &mut head).unwrap();
    let (sender, receiver) = mpsc::channel(1);
    let mut body = injection.request_body(Said(receiver));
    sender.send(Bytes::copy_from_slice(&placeholder.as_bytes()[..10])).await.unwrap();
    assert!(body.frame().await.unwrap().is_ok(), "control: it arrives after a moment");
    sender.send(Bytes::copy_from_slice(&placeholder.as_bytes()[10..])).await.unwrap();
    assert!(body.frame().await.unwrap().is_err());
}
