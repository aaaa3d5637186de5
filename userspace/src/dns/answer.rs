//! Pure: one query, one answer. The answer is made of the agent's own table of names and of
//! constants; nothing is asked of anyone.
//!
//! | asked | answered |
//! |---|---|
//! | A, AAAA of a name that some rule could allow | its synthetic address |
//! | A, AAAA of any other name | the same, or "no such name", as the policy says |
//! | A, AAAA of `localhost` | 127.0.0.1, `::1` |
//! | A, AAAA of what is no host name (control bytes, an address as a name) | no such name |
//! | HTTPS, SVCB | no data: no keys for encrypted hellos, no hints to other addresses |
//! | PTR of a synthetic address | its name |
//! | any other type, any other class | refused |
//! | several questions, none, an unknown opcode, broken bytes | an error code |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, Name, RData, RecordType, rdata};

use super::message::{self, Parsed, Question, Reply};
use super::pool::{Names, Standing, is_synthetic};
use crate::outcome::{Decision, Reason};
use crate::policy::{HostName, UnmatchedNames};

/// How a query arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// What was sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answered {
    /// The name's synthetic address, or the name of one.
    Synthetic,
    /// A loopback address, or the name of one.
    Local,
    NoData,
    NoSuchName,
    Refused,
    /// The message was not a question: a format error, "not implemented" or "bad version".
    Malformed,
    /// The agent holds too many names.
    Failed,
    /// Nothing: the message had no id, or was an answer.
    Nothing,
}

/// What an audit record of a query says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsOutcome {
    /// The name as asked, in lower case, bytes outside printable ASCII escaped as `\ddd`; empty
    /// when the question could not be read.
    pub name: String,
    /// The canonical name, if it is one.
    pub host: Option<HostName>,
    /// The type as text, `A` or `TYPE65280`; empty when the question could not be read.
    pub qtype: String,
    pub transport: Transport,
    /// `Allow`: some rule could allow the name. `Deny`: none could, or the query was refused;
    /// such a name may still have got an address (`answered` says so), so that the refusal of the
    /// connection is readable. `Note`: nothing was decided (local names, no data, reverse names).
    pub decision: Decision,
    /// Present exactly when `decision` is `Deny`.
    pub reason: Option<Reason>,
    pub answered: Answered,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What to send; `None` when nothing may be sent.
    pub bytes: Option<Vec<u8>>,
    pub outcome: DnsOutcome,
}

/// Answers one query. `allowed` says whether some rule could allow a name, at any port and for
/// any request; `unmatched` says what names get that no rule could allow.
pub fn answer(
    query: &[u8],
    transport: Transport,
    names: &Names,
    allowed: &dyn Fn(&HostName) -> bool,
    unmatched: UnmatchedNames,
) -> Answer {
    let question = match message::parse(query) {
        Parsed::Question(question) => question,
        Parsed::Refuse { head, code } => {
            let bytes = message::refusal(head, code);
            return Answer { bytes, outcome: malformed(transport, Answered::Malformed) };
        }
        Parsed::Ignore => {
            return Answer { bytes: None, outcome: malformed(transport, Answered::Nothing) };
        }
    };
    let decided = decide(&question, names, allowed, unmatched);
    let limit = match transport {
        Transport::Udp => question.udp_limit(),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let bytes = question.answer(decided.reply, limit);
    let outcome = DnsOutcome {
        name: question.query.name().to_lowercase().to_ascii(),
        host: decided.host,
        qtype: type_text(question.query.query_type()),
        transport,
        decision: decided.decision,
        reason: decided.reason,
        answered: decided.answered,
    };
    Answer { bytes, outcome }
}

fn malformed(transport: Transport, answered: Answered) -> DnsOutcome {
    DnsOutcome {
        name: String::new(),
        host: None,
        qtype: String::new(),
        transport,
        decision: Decision::Deny,
        reason: Some(Reason::MalformedDns),
        answered,
    }
}

/// The type's mnemonic, or `TYPEn` (RFC 3597).
fn type_text(qtype: RecordType) -> String {
    match qtype {
        RecordType::Unknown(number) => format!("TYPE{number}"),
        known => known.to_string(),
    }
}

struct Decided {
    reply: Reply,
    host: Option<HostName>,
    decision: Decision,
    reason: Option<Reason>,
    answered: Answered,
}

impl Decided {
    fn deny(reason: Reason, reply: Reply, answered: Answered) -> Self {
        Self { reply, host: None, decision: Decision::Deny, reason: Some(reason), answered }
    }

    fn note(reply: Reply, answered: Answered) -> Self {
        Self { reply, host: None, decision: Decision::Note, reason: None, answered }
    }
}

fn decide(
    question: &Question,
    names: &Names,
    allowed: &dyn Fn(&HostName) -> bool,
    unmatched: UnmatchedNames,
) -> Decided {
    if question.unknown_edns_version() {
        let reply = Reply::Code(ResponseCode::BADVERS);
        return Decided::deny(Reason::MalformedDns, reply, Answered::Malformed);
    }
    let refused = || {
        let reply = Reply::Code(ResponseCode::Refused);
        Decided::deny(Reason::DnsType, reply, Answered::Refused)
    };
    if question.query.query_class() != DNSClass::IN {
        return refused();
    }
    let name = question.query.name();
    let qtype = question.query.query_type();
    if qtype == RecordType::A || qtype == RecordType::AAAA {
        address(name, qtype, names, allowed, unmatched)
    } else if qtype == RecordType::HTTPS || qtype == RecordType::SVCB {
        Decided::note(Reply::NoData, Answered::NoData)
    } else if qtype == RecordType::PTR {
        reverse(name, names)
    } else {
        refused()
    }
}

fn address(
    name: &Name,
    qtype: RecordType,
    names: &Names,
    allowed: &dyn Fn(&HostName) -> bool,
    unmatched: UnmatchedNames,
) -> Decided {
    let data = |v4: Ipv4Addr, v6: Ipv6Addr| {
        let wants_v4 = qtype == RecordType::A;
        Reply::Data(vec![if wants_v4 { RData::A(rdata::A(v4)) } else { RData::AAAA(v6.into()) }])
    };
    if name.is_localhost() {
        return Decided::note(data(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST), Answered::Local);
    }
    let no_such_name =
        || Decided::deny(Reason::NameNotAllowed, Reply::NoSuchName, Answered::NoSuchName);
    let Some(host) = host_name(name) else {
        return no_such_name();
    };
    let standing = if allowed(&host) { Standing::Allowed } else { Standing::Unmatched };
    let is_allowed = standing == Standing::Allowed;
    if never_exists(&host) || (!is_allowed && unmatched == UnmatchedNames::Nxdomain) {
        return Decided { host: Some(host), ..no_such_name() };
    }
    match names.assign(&host, standing) {
        Ok(pair) => Decided {
            reply: data(pair.v4, pair.v6),
            decision: if is_allowed { Decision::Allow } else { Decision::Deny },
            reason: (!is_allowed).then_some(Reason::NameNotAllowed),
            answered: Answered::Synthetic,
            host: Some(host),
        },
        Err(_) => Decided {
            host: Some(host),
            ..Decided::deny(
                Reason::Overloaded,
                Reply::Code(ResponseCode::ServFail),
                Answered::Failed,
            )
        },
    }
}

/// The canonical name of what was asked, or `None` if no rule could name it. Labels are read as
/// bytes, never through an escaped text: a label that contains a dot is not two labels.
fn host_name(name: &Name) -> Option<HostName> {
    let mut text = String::with_capacity(name.len());
    for label in name {
        let ordinary = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !label.iter().all(ordinary) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|&b| char::from(b)));
    }
    HostName::parse(&text).ok()
}

/// Names that clients ask for in order to learn something from the failure:
/// `use-application-dns.net` switches Firefox's own DNS over HTTPS off when it does not exist;
/// an address for `ipv4only.arpa` would tell a client that it sits behind a NAT64 (RFC 7050);
/// `invalid` and `onion` never resolve (RFC 6761, RFC 7686).
fn never_exists(host: &HostName) -> bool {
    ["use-application-dns.net", "ipv4only.arpa", "invalid", "onion"].iter().any(|zone| {
        let rest = host.as_str().strip_suffix(zone);
        rest.is_some_and(|r| r.is_empty() || r.ends_with('.'))
    })
}

fn reverse(name: &Name, names: &Names) -> Decided {
    let answer = |text: &str, answered| {
        let Ok(target) = Name::from_ascii(format!("{text}.")) else {
            return Decided::note(Reply::NoSuchName, Answered::NoSuchName);
        };
        Decided::note(Reply::Data(vec![RData::PTR(rdata::PTR(target))]), answered)
    };
    match reverse_ip(name) {
        Some(ip) if ip.is_loopback() => answer("localhost", Answered::Local),
        Some(ip) if is_synthetic(ip) => match names.name_of(ip) {
            Some(host) => {
                Decided { host: Some(host.clone()), ..answer(host.as_str(), Answered::Synthetic) }
            }
            None => Decided::note(Reply::NoSuchName, Answered::NoSuchName),
        },
        _ => Decided::note(Reply::NoSuchName, Answered::NoSuchName),
    }
}

/// The whole address that a name under in-addr.arpa or ip6.arpa stands for.
fn reverse_ip(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
