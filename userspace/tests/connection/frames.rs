//! HTTP/2 by hand-written frames: what a well-behaved client cannot send is reset or refused,
//! floods end the connection, and the same request well-formed passes.

use egret::http::serve::ServeLimits;
use egret::policy::Protocol;

use super::raw::{
    self, CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, End, GET, HEADERS, RST_STREAM,
    block, frame, posting, request,
};
use super::upstream::{self, Upstream};
use super::world::{API, World, allow, policy};

fn world(up: &Upstream) -> World {
    World::new(policy(vec![allow("api.test", 443, Protocol::Https)], &[("api.test", up)]))
}

async fn ask(world: &World, frames: &[u8]) -> End {
    raw::ask(world.connect_tls(API, 443, "api.test", b"h2").await.unwrap(), frames).await
}

#[tokio::test]
async fn what_http_2_forbids_is_reset_or_refused() {
    let cases = raw::cases();
    let up = upstream::https("api.test").await;
    let world = world(&up);
    let mut passed = 0;
    for (what, frames, expected) in &cases {
        let end = ask(&world, frames).await;
        // A value that cannot be a field's is an error of the whole connection in h2.
        let stricter =
            *expected == End::Reset(raw::PROTOCOL_ERROR) && matches!(end, End::GoAway(_));
        assert!(end == *expected || stricter, "{what}: {end:?}");
        passed += usize::from(*expected == End::Status(200));
    }
    assert_eq!(up.notes.lines().len(), passed, "{:?}", up.notes.lines());
}

#[tokio::test]
async fn a_body_unlike_its_head_or_with_forbidden_trailers_never_arrives_whole() {
    let up = upstream::https("api.test").await;
    let world = world(&up);
    let cases = [
        ("too long", posting(&[("content-length", "1")], b"abc", None)),
        ("too short", posting(&[("content-length", "9")], b"abc", None)),
        ("connection", posting(&[], b"abc", Some(&[("connection", "x")]))),
        ("a length", posting(&[], b"abc", Some(&[("content-length", "3")]))),
        ("a host", posting(&[], b"abc", Some(&[("host", "other.test")]))),
        ("authorization", posting(&[], b"abc", Some(&[("authorization", "Bearer x")]))),
    ];
    for (what, frames) in &cases {
        let end = ask(&world, frames).await;
        assert!(end != End::Status(200), "{what}: {end:?}");
    }
    assert_eq!(up.notes.whole(), 0);
    let control = posting(&[("content-length", "3")], b"abc", Some(&[("x-sum", "1")]));
    assert_eq!(ask(&world, &control).await, End::Status(200));
    // h2 drops a pseudo-header there without a word; nobody behind it sees it.
    let pseudo = posting(&[], b"abc", Some(&[(":path", "/y"), ("x-sum", "2")]));
    ask(&world, &pseudo).await;
    assert_eq!(up.notes.lines().last().unwrap(), "POST /x");
    for trailers in up.notes.trailers.lock().unwrap().iter() {
        assert!(trailers.len() == 1 && trailers.contains_key("x-sum"), "{trailers:?}");
    }
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    const MOST: usize = 8;
    let up = upstream::https("api.test").await;
    let limits = ServeLimits { h2_resets: MOST, ..ServeLimits::default() };
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::limited(policy(rules, &[("api.test", &up)]), limits);
    let block = block(GET);
    let opened_and_reset = |n: u32| -> Vec<u8> {
        (0..n)
            .flat_map(|i| {
                let stream = 2 * i + 3;
                let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
                [open, frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
            })
            .collect()
    };
    let flood = opened_and_reset(2000);
    assert_eq!(ask(&world, &flood).await, End::GoAway(ENHANCE_YOUR_CALM));
    let reached = up.notes.lines().len();
    assert!(reached < 1000, "{reached}");
    // A client that changes its mind now and then is served.
    let mut few = request(GET);
    few.extend(opened_and_reset(2));
    assert_eq!(ask(&world, &few).await, End::Status(200));
}

#[tokio::test]
async fn streams_that_are_malformed_again_and_again_end_the_connection() {
    let up = upstream::https("api.test").await;
    let limits = ServeLimits { h2_resets: 8, ..ServeLimits::default() };
    let rules = vec![allow("api.test", 443, Protocol::Https)];
    let world = World::limited(policy(rules, &[("api.test", &up)]), limits);
    let bad = block(&[GET, &[("connection", "close")]].concat());
    let flood: Vec<u8> =
        (1..1000).flat_map(|i| frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, &bad)).collect();
    assert_eq!(ask(&world, &flood).await, End::GoAway(ENHANCE_YOUR_CALM));
    assert!(up.notes.lines().is_empty());
}

#[tokio::test]
async fn a_flood_of_continuations_or_fields_is_bounded() {
    let up = upstream::https("api.test").await;
    let world = world(&up);
    let begin = frame(HEADERS, END_STREAM, 1, &block(GET));

    let mut empty = begin.clone();
    for _ in 0..5000 {
        empty.extend(frame(CONTINUATION, 0, 1, &[]));
    }
    assert_eq!(ask(&world, &empty).await, End::GoAway(ENHANCE_YOUR_CALM));

    let field = block(&[("x-field", &"x".repeat(1000))]);
    let mut many = begin.clone();
    for _ in 0..2000 {
        many.extend(frame(CONTINUATION, 0, 1, &field));
    }
    assert!(matches!(ask(&world, &many).await, End::GoAway(_)));

    // A bomb: one field goes into the table once and is named over and over again, by a byte.
    let mut bomb = block(GET);
    bomb.push(0x40);
    bomb.extend_from_slice(&block(&[("x", &"y".repeat(4000))])[1..]);
    bomb.extend([0xbe; 10_000]);
    let bomb = frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb);
    let end = ask(&world, &bomb).await;
    assert!(!matches!(end, End::Status(200)), "{end:?}");
    assert!(up.notes.lines().is_empty());

    let mut few = begin;
    few.extend(frame(CONTINUATION, 0, 1, &field));
    few.extend(frame(CONTINUATION, END_HEADERS, 1, &field));
    assert_eq!(ask(&world, &few).await, End::Status(200), "control");
}
