//! Pure: the state folder, which holds the audit log.

use super::super::facts::{Folder, Log, Space, State};
use super::super::finding::{Finding, Promise};
use super::{Topic, Verdict, fail, ok, unknown, warn};
use crate::audit::verify::Condition;

const FOLDER: Topic = Topic {
    id: "state",
    name: "state folder",
    promises: &[Promise::P7, Promise::P9],
    essential: false,
    why: "the audit log and the key that signs it: nobody but egret should write there",
};
const SPACE: Topic = Topic {
    id: "disk",
    name: "room for the audit log",
    promises: &[Promise::P6, Promise::P9],
    essential: true,
    why: "a decision is written before a byte goes out; without room nothing goes out",
};
const LOG: Topic = Topic {
    id: "audit",
    name: "audit log",
    promises: &[Promise::P9],
    essential: false,
    why: "records that were changed, removed or cut off are found",
};

/// Below this there is no room for the records of one connection.
const LEAST: u64 = 1 << 20;
/// Below this it is time to make room.
const LITTLE: u64 = 256 << 20;
const LEAST_INODES: u64 = 16;

pub(super) fn judge(s: &State) -> Vec<Finding> {
    let at = s.path.display().to_string();
    vec![
        FOLDER.judge(&s.folder, |folder| self::folder(folder.as_ref(), &at)),
        SPACE.judge(&s.space, |space| self::space(space, &at)),
        LOG.judge(&s.audit, log),
    ]
}

fn folder(folder: Option<&Folder>, at: &str) -> Verdict {
    let Some(folder) = folder else {
        return ok(format!("{at} does not exist yet; the first `egret run` makes it"));
    };
    let found = format!("{at}, owner {}, mode {:04o}", folder.owner, folder.mode);
    if !folder.is_dir {
        return fail(format!("{at} is not a folder")).fix("name a folder with --state");
    }
    if folder.owner != folder.expected {
        return fail(found)
            .means("its owner can replace the log together with its keys")
            .fix(format!("chown -R {} {at}", folder.expected));
    }
    if folder.mode & 0o022 != 0 {
        return fail(found)
            .means("others can replace the log together with its keys")
            .fix(format!("chmod 0700 {at}"));
    }
    if let Some(above) = &folder.exposed {
        let above = above.display();
        return warn(format!("{found}, below {above}"))
            .means(format!("others may rename it, or put another in its place: {above} is theirs"))
            .fix("name a folder with --state that only root can reach and change");
    }
    if folder.mode & 0o055 != 0 {
        return warn(found)
            .means("others may see which sessions there were; the records are files of mode 0600")
            .fix(format!("chmod 0700 {at}"));
    }
    ok(found)
}

fn space(space: &Space, at: &str) -> Verdict {
    let mib = space.bytes >> 20;
    if space.read_only {
        return fail("the file system is read-only").fix("name another folder with --state");
    }
    let few = space.inodes.filter(|n| *n < LEAST_INODES);
    if space.bytes < LEAST || few.is_some() {
        let inodes = few.map_or_else(String::new, |n| format!(", {n} inodes"));
        return fail(format!("{mib} MiB free{inodes}"))
            .means("egret cannot write its records, so it lets nothing pass")
            .fix(format!("make room in the file system of {at}"));
    }
    if space.bytes < LITTLE {
        return warn(format!("{mib} MiB free"))
            .means("when it is full, every connection is refused")
            .fix(format!("make room in the file system of {at}"));
    }
    ok(format!("{mib} MiB free"))
}

fn log(log: &Log) -> Verdict {
    let (condition, records, journals, first) = match log {
        Log::None => return ok("no records yet"),
        Log::Large(bytes) => {
            return unknown(format!("{} MiB, not verified here", bytes >> 20))
                .means("whether it is intact was not looked at")
                .fix("egret audit verify");
        }
        Log::Verified { condition, records, journals, first } => {
            (condition, records, journals, first)
        }
    };
    let found = |word: &str| {
        let first = first.as_ref().map_or_else(String::new, |f| format!(": {f}"));
        format!("{word}, {records} records in {journals} journals{first}")
    };
    let verify = "`egret audit verify` lists everything; keep a copy before you change anything";
    match condition {
        Condition::Intact => ok(found("intact")),
        Condition::TornTail => warn(found("torn tail"))
            .means("an egret was killed while it wrote; no acknowledged record is missing"),
        Condition::Unreadable => {
            fail(found("unreadable")).means("nobody can say what was let out").fix(verify)
        }
        Condition::Shorter => {
            fail(found("shorter than a checkpoint")).means("records are missing").fix(verify)
        }
        Condition::Tampered => {
            fail(found("tampered")).means("records were changed or removed").fix(verify)
        }
    }
}
