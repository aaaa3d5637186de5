//! The control: the same requests to the servers themselves, who read them in different ways. It makes
//! the table of `README.md` in this folder.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::SILENCE;
use super::decided::{is_request, send};
use super::origins::Origin;
use super::raw::{self, End};
use super::requests;
use super::world::tls_client;

/// After so long a server has written down what it read.
const NOTED: Duration = Duration::from_millis(40);

/// Sends the malformed requests to the servers themselves. Fails if they agree on nearly all.
pub fn directly(origins: &[Arc<Origin>], table: &mut String) -> Result<String, String> {
    let mut disagreed = 0;
    let cases = requests::malformed();
    heading(table, "HTTP/1", origins);
    for case in &cases {
        let read: Vec<Vec<String>> =
            origins.iter().map(|o| read_directly(o, &case.bytes)).collect();
        disagreed += usize::from(read.iter().any(|r| *r != read[0]));
        row(table, &case.name, "400 `malformed_request`", &read);
    }
    let text =
        format!("{disagreed} of {} malformed requests are read in different ways", cases.len());
    if disagreed >= 10 { Ok(text) } else { Err(text) }
}

fn read_directly(origin: &Origin, bytes: &[u8]) -> Vec<String> {
    let before = origin.seen().len();
    let mut io = TcpStream::connect(origin.address).unwrap();
    io.set_read_timeout(Some(SILENCE)).unwrap();
    let _ = io.write_all(bytes);
    let mut buffer = [0; 4096];
    while let Ok(1..) = io.read(&mut buffer) {}
    drop(io);
    std::thread::sleep(NOTED);
    // The line without its version, which not every server writes as it came.
    let words = |line: &String| line.split(" HTTP/").next().unwrap_or("").to_owned();
    origin.seen()[before..].iter().filter(|line| is_request(line)).map(words).collect()
}

/// The same over HTTP/2, to those that speak it. What egret says of each is asserted elsewhere.
pub async fn directly_h2(
    origins: &[Arc<Origin>],
    ca: &str,
    table: &mut String,
) -> Result<String, String> {
    heading(table, "HTTP/2", origins);
    let (mut disagreed, mut malformed) = (0, 0);
    for (name, frames, end) in raw::cases() {
        let mut read = Vec::new();
        for origin in origins {
            read.push(read_directly_h2(origin, ca, &frames).await);
        }
        let verdict = match end {
            End::Status(200) => "passes".to_owned(),
            End::Status(status) => format!("{status} `malformed_request`"),
            End::Reset(_) => "stream reset".to_owned(),
            End::GoAway(_) | End::Closed => "connection ended".to_owned(),
        };
        row(table, name, &verdict, &read);
        if end != End::Status(200) {
            malformed += 1;
            disagreed += usize::from(read.iter().any(|r| *r != read[0]));
        }
    }
    let text = format!("{disagreed} of {malformed} malformed requests are read in different ways");
    if disagreed >= 3 { Ok(text) } else { Err(text) }
}

#[expect(clippy::disallowed_methods, reason = "the control goes past egret")]
async fn read_directly_h2(origin: &Origin, ca: &str, frames: &[u8]) -> Vec<String> {
    let before = origin.seen().len();
    let io = tokio::net::TcpStream::connect(origin.address).await.unwrap();
    let io = tls_client(io, ca, "api.test", b"h2").await.unwrap();
    send(io, &raw::opening(frames)).await;
    tokio::time::sleep(NOTED).await;
    // The target without the authority, which haproxy puts before it.
    let words = |line: &String| {
        let line = line.split(" HTTP/").next().unwrap_or("");
        line.replace("https://api.test", "")
    };
    origin.seen()[before..].iter().filter(|line| is_request(line)).map(words).collect()
}

fn heading(table: &mut String, version: &str, origins: &[Arc<Origin>]) {
    let names: Vec<_> = origins.iter().map(|o| o.name).collect();
    let _ = writeln!(table, "\n| {version} | behind egret | {} |", names.join(" | "));
    let _ = writeln!(table, "|---|---|{}", "---|".repeat(names.len()));
}

/// One line of the table: how many requests each server read.
fn row(table: &mut String, name: &str, verdict: &str, read: &[Vec<String>]) {
    let counts: Vec<_> = read.iter().map(|r| r.len().to_string()).collect();
    let _ = writeln!(table, "| {name} | {verdict} | {} |", counts.join(" | "));
}
