//! What passes the strict reader, byte for byte, however the bytes arrive.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 1024, fields: 16 };
const GET: &str = "GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n";
const POST: &str = "POST /b HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nGET ";
const CHUNKED: &str = "POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                       5\r\nGET /\r\n0\r\nX: y\r\n\r\n";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nUpgrade: x\r\n\r\n";

struct Pair {
    agent: DuplexStream,
    strict: Strict<DuplexStream>,
    gate: Arc<Gate>,
}

fn pair() -> Pair {
    let (agent, egret) = tokio::io::duplex(1 << 16);
    let gate = Arc::new(Gate::default());
    Pair { agent, strict: Strict::new(egret, LIMITS, Arc::clone(&gate)), gate }
}

impl Pair {
    /// Sends the text in pieces of `size` and gives what has passed when all of it was read.
    async fn pass(&mut self, text: &str, size: usize) -> io::Result<String> {
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            self.agent.write_all(piece).await?;
            self.drain(&mut out).await?;
        }
        Ok(String::from_utf8(out).unwrap())
    }

    /// Everything that can be read now.
    async fn drain(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut buffer = [0; 64];
            let mut buffer = ReadBuf::new(&mut buffer);
            let strict = Pin::new(&mut self.strict);
            let mut strict = Some(strict);
            let polled = std::future::poll_fn(|cx| {
                Poll::Ready(strict.take().map(|s| s.poll_read(cx, &mut buffer)))
            });
            match polled.await {
                Some(Poll::Ready(read)) => read?,
                Some(Poll::Pending) | None => return Ok(()),
            }
            if buffer.filled().is_empty() {
                return Ok(());
            }
            out.extend_from_slice(buffer.filled());
        }
    }
}

const SIZES: [usize; 5] = [1, 3, 17, 64, 4096];

#[tokio::test]
async fn what_is_well_formed_passes_unchanged() {
    let text = [GET, POST, CHUNKED, GET, POST].concat();
    for size in SIZES {
        assert_eq!(pair().pass(&text, size).await.unwrap(), text, "{size}");
    }
}

#[tokio::test]
async fn a_head_passes_only_when_it_is_complete() {
    let mut pair = pair();
    let (first, last) = GET.split_at(GET.len() - 1);
    assert_eq!(pair.pass(first, 7).await.unwrap(), "");
    assert_eq!(pair.pass(last, 1).await.unwrap(), GET);
}

#[tokio::test]
async fn a_malformed_head_is_replaced_and_ends_what_is_read() {
    let stand_in = std::str::from_utf8(STAND_IN).unwrap();
    let bad = "GET /x#y HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for before in ["", GET, POST, CHUNKED] {
        for size in SIZES {
            let mut pair = pair();
            let text = [before, bad, GET].concat();
            let passed = pair.pass(&text, size).await.unwrap();
            assert_eq!(passed, [before, stand_in].concat(), "{size}");
            let request = |method| Request::builder().method(method).body(()).unwrap();
            let why = pair.gate.unreadable(&request("-"));
            assert_eq!(why, Some(Unreadable("the target has a fragment")));
            assert_eq!(pair.gate.unreadable(&request("GET")), None);
        }
    }
}

#[tokio::test]
async fn the_stand_in_is_refused_by_every_reader_behind() {
    assert!(matches!(head::check(STAND_IN, LIMITS), Parsed::Malformed(_)));
    let request = Request::builder().method("-").uri("*").body(()).unwrap();
    assert!(crate::http::admission::admit(&request.into_parts().0, false).is_err());
}

#[tokio::test]
async fn a_malformed_body_is_an_error_and_its_whole_request_is_held_back_where_possible() {
    let bad = CHUNKED.replace("GET /\r\n0", "GET /bad\r\n0");
    let stand_in = std::str::from_utf8(STAND_IN).unwrap();
    // At once: not even the head has passed.
    assert_eq!(pair().pass(&[GET, &bad].concat(), 4096).await.unwrap(), [GET, stand_in].concat());
    // The head has passed: the body breaks.
    let error = pair().pass(&bad, 1).await.unwrap_err();
    let inner = error.get_ref().unwrap();
    assert!(inner.is::<MalformedBody>(), "{inner}");
}

#[tokio::test]
async fn bytes_behind_an_upgrade_wait_for_its_answer() {
    for left in [false, true] {
        for size in SIZES {
            let mut pair = pair();
            let text = [GET, UPGRADE, "no\0http"].concat();
            assert_eq!(pair.pass(&text, size).await.unwrap(), [GET, UPGRADE].concat(), "{size}");
            pair.gate.answered(false); // of the GET before
            assert_eq!(pair.pass("\r\n\r\n", 4).await.unwrap(), "", "{size}");
            pair.gate.answered(left);
            let after = pair.pass("\0more", size).await.unwrap();
            let stand_in = std::str::from_utf8(STAND_IN).unwrap();
            assert_eq!(after, if left { "no\0http\r\n\r\n\0more" } else { stand_in }, "{size}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_granted_is_followed_by_requests() {
    let mut pair = pair();
    assert_eq!(pair.pass(&[UPGRADE, GET].concat(), 4096).await.unwrap(), UPGRADE);
    pair.gate.answered(false);
    assert_eq!(pair.pass(POST, 4096).await.unwrap(), [GET, POST].concat());
}

#[tokio::test]
async fn the_end_is_told_while_an_upgrade_waits() {
    let mut pair = pair();
    assert_eq!(pair.pass(UPGRADE, 4096).await.unwrap(), UPGRADE);
    pair.agent.shutdown().await.unwrap();
    assert_eq!(pair.strict.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_held_is_bounded() {
    let mut pair = pair();
    let passed = pair.pass(&"GET /aaaaaaa".repeat(1000), 100).await.unwrap();
    assert_eq!(passed.as_bytes(), STAND_IN);
    let mut waiting = self::pair();
    waiting.pass(UPGRADE, 4096).await.unwrap();
    waiting.pass(&"x".repeat(10_000), 100).await.unwrap();
    assert!(waiting.strict.held.len() < LIMITS.bytes + 64, "{}", waiting.strict.held.len());
}

#[tokio::test]
async fn a_refused_connection_is_read_on_so_that_the_answer_arrives() {
    let mut pair = pair();
    pair.pass("bad\r\n", 5).await.unwrap();
    pair.agent.write_all(&[b'x'; 10_000]).await.unwrap();
    let Pair { mut agent, mut strict, .. } = pair;
    let closing = tokio::spawn(async move { strict.shutdown().await.map(|()| strict) });
    assert_eq!(agent.read(&mut [0; 8]).await.unwrap(), 0, "the end of the answer is told first");
    drop(agent);
    closing.await.unwrap().unwrap();
}
