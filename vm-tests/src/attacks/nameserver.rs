//! A resolver at the far end of the link, which the machine and egret are given. It answers
//! `a-HEX.…` and `aaaa-HEX.…` with the address that the label spells, `c-HEX.…` with an alias in
//! another zone and the address of that, and everything else with an empty answer.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

/// Answers until it is dropped.
pub(super) struct Nameserver {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Nameserver {
    /// Listen in the calling thread's network namespace.
    pub(super) fn start(address: IpAddr) -> Result<Self> {
        let socket = UdpSocket::bind((address, 53))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::SeqCst) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer)
                    && let Some(answer) = answer(&buffer[..length])
                {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to one query.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let length = usize::from(*query.get(12)?);
    let label = std::str::from_utf8(query.get(13..13 + length)?).ok()?.to_ascii_lowercase();
    let mut at = 12;
    while *query.get(at)? != 0 {
        at += 1 + usize::from(query[at]);
    }
    let end = at + 5; // the end of the question: the root label, type and class
    let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let data = match (kind, label.split_once('-')) {
        (1, Some(("a" | "c", hex))) => bytes(hex).filter(|b| b.len() == 4),
        (28, Some(("aaaa", hex))) => bytes(hex).filter(|b| b.len() == 16),
        _ => None,
    };
    let alias = data.is_some() && label.starts_with("c-");
    let answers = u8::from(data.is_some()) + u8::from(alias);
    let mut out = query.get(..2)?.to_vec();
    out.extend([0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
    out.extend(query.get(12..end)?);
    // The answer is of the question's name, or of the alias, wherever in the message that stands.
    let mut owner = vec![0xc0, 12];
    if alias {
        out.extend(&owner);
        owner = ALIAS.to_vec();
        out.extend(record(5, ALIAS));
    }
    if let Some(data) = data {
        out.extend(owner);
        out.extend(record(kind, &data));
    }
    Some(out)
}

/// What `c-HEX` is an alias of.
const ALIAS: &[u8] = b"\x06hidden\x06denied\x04test\0";

/// Type, class, time to live and data.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend([0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap_or(0)]);
    out.extend(data);
    out
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|p| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{ALIAS, answer};

    #[test]
    fn a_label_spells_its_answer() {
        let query = |label: &str, kind: u8| {
            let mut q =
                vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(label.len()).unwrap()];
            q.extend(label.as_bytes());
            q.extend([1, b'x', 0, 0, kind, 0, 1]);
            q
        };
        let yes = answer(&query("a-0a4d0001", 1)).unwrap();
        assert!(yes.ends_with(&[0, 4, 10, 77, 0, 1]) && yes[7] == 1);
        let alias = answer(&query("c-0a4d0001", 1)).unwrap();
        assert!(alias.ends_with(&[0, 4, 10, 77, 0, 1]) && alias[7] == 2);
        assert!(alias.windows(ALIAS.len()).filter(|w| *w == ALIAS).count() == 2);
        for (label, kind) in [("a-0a4d0001", 28), ("a-0a4d", 1), ("www", 1), ("a-zz", 1)] {
            assert_eq!(answer(&query(label, kind)).unwrap()[7], 0, "{label}");
        }
        assert_eq!(answer(b"short"), None);
    }
}
