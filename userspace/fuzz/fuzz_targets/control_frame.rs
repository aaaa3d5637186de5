//! What somebody sends to the daemon's control socket, in the packet or in a memory file: it never
//! panics, nothing but a request is taken for one, and a request that was taken is sent on as it
//! came.
#![no_main]

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::LazyLock;

use egret::control::frame::{receive, send};
use egret::control::wire::{Answer, Request};
use egret::sys::fdpass;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

const LONGEST: u64 = 4096;

static PAIR: LazyLock<(OwnedFd, OwnedFd)> = LazyLock::new(|| fdpass::pair().expect("a pair"));

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    let file = how & 4 != 0;
    if how & 1 == 0 { check::<Request>(data, file) } else { check::<Answer>(data, file) }
});

fn check<T: Serialize + DeserializeOwned>(data: &[u8], in_file: bool) {
    let (a, b) = &*PAIR;
    if data.is_empty() || data.len() > 8000 {
        return; // no packet: to a reader this is the end
    }
    let got = if in_file {
        let file = memory(data);
        put(a, &[1], &[file.as_fd()]);
        receive::<T>(b, LONGEST)
    } else {
        put(a, data, &[]);
        receive::<T>(b, LONGEST)
    };
    let Ok(Some((value, fds))) = got else { return };
    assert!(fds.is_empty() && (data.len() as u64 <= LONGEST || !in_file));
    let json = if in_file { data } else { &data[1..] };
    assert!(serde_json::from_slice::<T>(json).is_ok(), "this is not the message");
    let told = serde_json::to_value(&value).expect("JSON");
    send(a, &value, &[]).expect("sent on");
    let (again, _) = receive::<T>(b, 1 << 20).expect("read again").expect("a message");
    assert_eq!(serde_json::to_value(&again).expect("JSON"), told);
}

fn put(socket: &OwnedFd, packet: &[u8], fds: &[BorrowedFd<'_>]) {
    fdpass::send_all(socket, packet, fds).expect("sent");
}

/// A file in memory.
fn memory(bytes: &[u8]) -> File {
    let mut file = File::from(
        nix::sys::memfd::memfd_create(c"f", nix::sys::memfd::MFdFlags::empty()).expect("a file"),
    );
    file.write_all(bytes).and_then(|()| file.rewind()).expect("written");
    file
}
