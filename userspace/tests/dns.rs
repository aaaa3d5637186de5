//! The agent's DNS over real UDP and TCP sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use egret::dns::serve::{Limits, serve_within};
use egret::dns::{DnsRecord, NameView, Names, Recorder, Server, Standing, is_synthetic};
use egret::outcome::{Decision, Reason};
use egret::policy::{HostName, UnmatchedNames};
use egret::shutdown::{self, Trigger};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// More than any answer on loopback takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(5);

type Seen = Arc<Mutex<Vec<(String, Decision, Option<Reason>)>>>;

struct World {
    udp: SocketAddr,
    tcp: SocketAddr,
    names: Arc<Names>,
    seen: Seen,
    trigger: Trigger,
    serving: JoinHandle<()>,
}

/// Allows `*.allowed.example`.
struct View(UnmatchedNames);

impl NameView for View {
    fn allows(&self, name: &HostName) -> bool {
        name.as_str().ends_with(".allowed.example")
    }

    fn unmatched(&self) -> UnmatchedNames {
        self.0
    }
}

/// A server that allows `*.allowed.example`.
async fn world(unmatched: UnmatchedNames) -> World {
    world_within(Limits::default(), unmatched).await
}

async fn world_within(limits: Limits, unmatched: UnmatchedNames) -> World {
    let names = Arc::new(Names::new());
    let seen = Seen::default();
    let sink = {
        let seen = Arc::clone(&seen);
        Arc::new(move |r: DnsRecord<'_>| {
            let o = r.outcome;
            seen.lock().unwrap().push((o.name.clone(), o.decision, o.reason));
        })
    };
    let server = Server::new(Arc::clone(&names), Box::new(View(unmatched)), Recorder::new(sink));
    let udp_socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (udp, tcp) = (udp_socket.local_addr().unwrap(), listener.local_addr().unwrap());
    let (trigger, watcher) = shutdown::channel();
    let serving = tokio::spawn(serve_within(
        limits,
        vec![udp_socket],
        vec![listener],
        Arc::new(server),
        watcher,
    ));
    World { udp, tcp, names, seen, trigger, serving }
}

fn question(id: u16, name: &str, qtype: RecordType) -> Vec<u8> {
    let mut m = Message::new(id, MessageType::Query, OpCode::Query);
    m.metadata.recursion_desired = true;
    m.add_query(Query::query(Name::from_ascii(name).unwrap(), qtype));
    m.to_vec().unwrap()
}

fn first_ip(m: &Message) -> Option<IpAddr> {
    m.answers.first().and_then(|r| r.data.ip_addr())
}

impl World {
    async fn over_udp(&self, query: &[u8]) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(self.udp).await.unwrap();
        socket.send(query).await.unwrap();
        let mut buffer = [0; 2048];
        let len = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        Message::from_vec(&buffer[..len]).unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpSocket::new_v4().unwrap().connect(self.tcp).await.unwrap()
    }
}

fn framed(query: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(query.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(query);
    bytes
}

async fn read_answer(stream: &mut TcpStream) -> Message {
    let len = timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap();
    let mut bytes = vec![0; usize::from(len)];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    Message::from_vec(&bytes).unwrap()
}

/// Waits for the peer to close; bytes before that are an error.
async fn closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(timeout(PATIENCE, stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn udp_and_tcp_give_the_same_addresses_and_one_record() {
    let w = world(UnmatchedNames::Nxdomain).await;
    let udp = w.over_udp(&question(1, "Api.Allowed.example.", RecordType::A)).await;
    let ip = first_ip(&udp).unwrap();
    assert!(is_synthetic(ip) && udp.metadata.id == 1);
    let host = HostName::parse("api.allowed.example").unwrap();
    assert_eq!(w.names.name_of(ip), Some(host));

    let mut stream = w.connect().await;
    for id in 2..5 {
        let query = question(id, "api.allowed.example.", RecordType::A);
        stream.write_all(&framed(&query)).await.unwrap();
        let tcp = read_answer(&mut stream).await;
        assert_eq!((first_ip(&tcp), tcp.metadata.id), (Some(ip), id));
    }
    let denied = w.over_udp(&question(9, "evil.example.", RecordType::A)).await;
    assert_eq!(denied.response_code, ResponseCode::NXDomain);
    let txt = w.over_udp(&question(9, "api.allowed.example.", RecordType::TXT)).await;
    assert_eq!(txt.response_code, ResponseCode::Refused);
    let expected = [
        ("api.allowed.example.".to_owned(), Decision::Allow, None),
        ("evil.example.".to_owned(), Decision::Deny, Some(Reason::NameNotAllowed)),
        ("api.allowed.example.".to_owned(), Decision::Deny, Some(Reason::DnsType)),
    ];
    assert_eq!(*w.seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn queries_that_arrive_together_or_in_pieces_are_answered_in_order() {
    let w = world(UnmatchedNames::Synthesize).await;
    let mut stream = w.connect().await;
    let both: Vec<u8> = [1, 2]
        .into_iter()
        .flat_map(|id| framed(&question(id, &format!("n{id}.allowed.example."), RecordType::AAAA)))
        .collect();
    let (head, tail) = both.split_at(1);
    stream.set_nodelay(true).unwrap();
    stream.write_all(head).await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(tail).await.unwrap();
    for id in [1, 2] {
        let answer = read_answer(&mut stream).await;
        assert_eq!(answer.metadata.id, id);
        assert!(first_ip(&answer).is_some_and(|ip| ip.is_ipv6()));
    }
}

#[tokio::test]
async fn malformed_messages_cost_their_connection_and_nothing_else() {
    let w = world(UnmatchedNames::Synthesize).await;
    let good = question(3, "x.allowed.example.", RecordType::A);
    let mut looped = good[..12].to_vec();
    looped.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);

    let mut stream = w.connect().await;
    stream.write_all(&framed(&looped)).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.response_code, ResponseCode::FormErr);
    assert!(closed(&mut stream).await);
    for junk in [&b"\0\0"[..], b"\0\x05short"] {
        let mut stream = w.connect().await;
        stream.write_all(junk).await.unwrap();
        assert!(closed(&mut stream).await, "{junk:?}");
    }
    assert_eq!(w.over_udp(&looped).await.response_code, ResponseCode::FormErr);
    let mut oversized = good.clone();
    oversized.resize(60_000, 0);
    assert_eq!(w.over_udp(&oversized).await.response_code, ResponseCode::FormErr);

    assert!(first_ip(&w.over_udp(&good).await).is_some(), "control: UDP goes on");
    let mut stream = w.connect().await;
    stream.write_all(&framed(&good)).await.unwrap();
    assert!(first_ip(&read_answer(&mut stream).await).is_some(), "control: TCP goes on");
    let malformed = Some(Reason::MalformedDns);
    assert!(w.seen.lock().unwrap().iter().any(|(_, _, reason)| *reason == malformed));
}

#[tokio::test]
async fn silent_connections_are_bounded_and_do_not_stop_udp() {
    let w = world(UnmatchedNames::Synthesize).await;
    let mut held = Vec::new();
    for _ in 0..Limits::default().connections {
        let mut stream = w.connect().await;
        let query = question(1, "x.allowed.example.", RecordType::A);
        stream.write_all(&framed(&query)).await.unwrap();
        read_answer(&mut stream).await; // the slot is really taken
        held.push(stream);
    }
    let mut one_more = w.connect().await;
    assert!(closed(&mut one_more).await, "a connection beyond the limit is closed");
    let udp = w.over_udp(&question(2, "y.allowed.example.", RecordType::A)).await;
    assert!(first_ip(&udp).is_some(), "control: UDP is not affected");

    drop(held);
    let again = async {
        loop {
            let mut stream = w.connect().await;
            let query = question(3, "z.allowed.example.", RecordType::A);
            let sent = stream.write_all(&framed(&query)).await.is_ok();
            if sent && stream.read_u16().await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("slots come back");
}

#[tokio::test]
async fn a_slow_client_is_closed_and_others_are_served() {
    let limits = Limits { idle: Duration::from_millis(500), ..Limits::default() };
    let w = world_within(limits, UnmatchedNames::Synthesize).await;
    let mut stream = w.connect().await;
    let query = framed(&question(1, "x.allowed.example.", RecordType::A));
    stream.write_all(&query).await.unwrap();
    read_answer(&mut stream).await; // control: it is answered at first
    stream.write_all(&query[..query.len() - 1]).await.unwrap();
    assert!(closed(&mut stream).await, "closed without an answer");
    let mut other = w.connect().await;
    other.write_all(&query).await.unwrap();
    assert!(first_ip(&read_answer(&mut other).await).is_some());
}

#[tokio::test]
async fn the_drain_ends_everything() {
    let w = world(UnmatchedNames::Synthesize).await;
    let mut stream = w.connect().await;
    let query = framed(&question(1, "x.allowed.example.", RecordType::A));
    stream.write_all(&query).await.unwrap();
    read_answer(&mut stream).await;
    w.trigger.drain();
    timeout(PATIENCE, w.serving).await.expect("serve returns").unwrap();
    assert!(closed(&mut stream).await);
    UdpSocket::bind(w.udp).await.expect("the UDP port is free again");
}

#[tokio::test]
async fn a_session_keeps_its_names_whatever_the_order() {
    let w = world(UnmatchedNames::Synthesize).await;
    let host = HostName::parse("later.allowed.example").unwrap();
    let pair = w.names.assign(&host, Standing::Allowed).unwrap();
    for i in 0..20 {
        w.over_udp(&question(i, &format!("noise{i}.example."), RecordType::A)).await;
    }
    let answer = w.over_udp(&question(99, "LATER.allowed.example.", RecordType::AAAA)).await;
    assert_eq!(first_ip(&answer), Some(pair.v6.into()));
}
