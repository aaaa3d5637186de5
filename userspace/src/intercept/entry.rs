//! From a fresh process to one that serves and can do nothing else.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

use super::steward::{self, Steward};
use super::wire::{ARGUMENT, Numbered, Order, Report, Start};
use crate::audit::{Audit, AuditOptions, Draft, Durability, Event};
use crate::confine::{self, Confined};
use crate::connection::Settings;
use crate::contain::hardening;
use crate::control::frame;
use crate::forward::resolve::Resolver;
use crate::identify::SessionId;
use crate::redirect::feed::Feed;
use crate::serve::Shared;
use crate::sys::process;
use crate::tls::authority::{Authority, PemPair};
use crate::tls::leaf::LeafMinter;

/// Exit code of an interceptor that could not serve.
const FAILED: u8 = 125;

/// Becomes the interceptor if the arguments say so; `None` in every other case. `main` calls it
/// before anything else, so that no thread exists and no runtime was made.
pub fn entry(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let _program = args.next();
    if args.next()? != ARGUMENT {
        return None;
    }
    let number = args.next().and_then(|n| n.to_str()?.parse().ok());
    let code = match number.and_then(|n| process::adopt(n).ok()) {
        Some(socket) => run(socket),
        None => FAILED, // typed by hand
    };
    Some(ExitCode::from(code))
}

fn run(socket: OwnedFd) -> u8 {
    let _ = nix::sys::prctl::set_name(c"egret-intercept");
    // The service manager tells every process of the unit to end, and a terminal its whole group;
    // this one ends when the warden says so, or is gone.
    let deaf: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&deaf), None);
    let first = frame::receive::<Numbered<Order>>(&socket, frame::ALL_POLICIES);
    let Ok(Some((Numbered { n, what: Order::Start(start) }, maps))) = first else { return FAILED };
    let report = |what: Report| frame::send(&socket, &Numbered { n, what }, &[]);
    let (shared, confined) = match begin(&start, maps) {
        Ok(ready) => ready,
        Err(why) => {
            let _ = report(Report::Failed(why.to_string()));
            return FAILED;
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("egret").build();
    match runtime {
        Ok(runtime) if report(Report::Ready(confined)).is_ok() => {
            let served =
                runtime.block_on(steward::serve(socket, Steward::new(shared, start.names.clone())));
            runtime.shutdown_background();
            if served.is_ok() { 0 } else { FAILED }
        }
        Ok(_) => FAILED,
        Err(error) => {
            let _ = report(Report::Failed(format!("the runtime cannot be started: {error}")));
            FAILED
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Gives everything up, and opens what is left: the log, in the folder that is its user's.
fn begin(start: &Start, maps: Vec<OwnedFd>) -> Result<(Shared, Confined), Failure> {
    hardening::protect_self()?;
    hardening::raise_open_files()?;
    let [flows, lease, events, stats] = <[OwnedFd; 4]>::try_from(maps)
        .map_err(|_| io::Error::other("the warden passed other maps than expected"))?;
    let authority = Authority::from_pem_pair(&PemPair {
        certificate: start.authority_certificate.clone(),
        key: start.authority_key.0.clone(),
    })?;
    // Roots and random numbers are needed for the first request; what they are read from may be
    // out of sight afterwards.
    crate::tls::warm();
    let confined = confine::confine(&start.confinement)?;
    let feed = Arc::new(Feed::from_fds([flows, lease, events, stats], start.lease)?);
    let session = SessionId::random();
    let opening = Draft::note(Event::SessionStart).message(&start.opening);
    let audit = Audit::open(&AuditOptions {
        opening,
        durability: if start.power { Durability::Power } else { Durability::Process },
        ..AuditOptions::new(&start.state, session)
    })?;
    let shared = Shared {
        feed,
        audit,
        leaves: Arc::new(LeafMinter::new(authority)?),
        resolver: Arc::new(Resolver::system()),
        settings: Settings { connections: start.connections, ..Settings::default() },
    };
    Ok((shared, confined))
}
