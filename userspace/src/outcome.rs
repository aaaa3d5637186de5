//! Pure: the closed vocabulary of refusals. One `Reason` stands in audit records, HTTP answers,
//! `explain`, the exit summary of `run` and the kernel's events; nothing else may refuse.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where in the life of a connection something was decided. Printed as `layer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Kernel,
    Connect,
    Dns,
    Tls,
    Request,
    Inject,
    Audit,
    Forward,
    Response,
    Control,
}

impl Stage {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Request => "request",
            Self::Inject => "inject",
            Self::Audit => "audit",
            Self::Forward => "forward",
            Self::Response => "response",
            Self::Control => "control",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $meaning:literal;)*) => {
        /// Why something was refused. Closed: a refusal without a reason does not compile.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the life of a connection.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable name, as audit, answers and `explain` print it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status of a refusal with this reason.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// One sentence for a person: what happened.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

reasons! {
    // Kernel: decided in the hooks, before any byte.
    SocketFamily = "socket_family", 403, "this kind of socket cannot be governed, so it cannot be opened";
    UdpRefused = "udp_refused", 403, "UDP other than DNS is refused, so that clients fall back to TCP";
    NotLoopback = "not_loopback", 403, "a packet tried to leave by an interface other than loopback";
    InterceptorPort = "interceptor_port", 403, "the interceptor's own ports cannot be bound or dialled";
    NoListener = "no_listener", 503, "this network namespace has no interceptor yet";
    LeaseExpired = "lease_expired", 503, "egret has not been heard from within its lease";
    FlowMapFull = "flow_map_full", 503, "the kernel's table of flows is full";
    SharedLoopback = "shared_loopback", 403, "loopback is shared with others here, and `[local]` does not open this port";
    KernelDenied = "kernel_denied", 403, "a kernel hook refused the operation";
    // Redirect and identify.
    FlowUnknown = "flow_unknown", 403, "the connection did not come through the kernel hooks";
    AgentClosed = "agent_closed", 403, "the agent was closed: it is refused everything until an operator opens it";
    AgentUnknown = "agent_unknown", 403, "no policy is attached to the cgroup that opened this connection";
    // DNS.
    MalformedDns = "malformed_dns", 400, "the DNS message could not be parsed";
    DnsType = "dns_type", 403, "this DNS record type is not answered";
    NameNotAllowed = "name_not_allowed", 403, "no rule could allow this name";
    // Policy.
    NoRule = "no_rule", 403, "no rule of the policy allows this";
    DeniedByRule = "denied_by_rule", 403, "a deny rule of the policy forbids this";
    AskUnavailable = "ask_unavailable", 403, "the rule asks for approval and nobody can be asked";
    AskDenied = "ask_denied", 403, "approval was asked for and refused";
    SessionExpired = "session_expired", 403, "the session's time or budget is used up";
    RequestLimit = "request_limit", 429, "the rule's request rate is used up";
    UploadLimit = "upload_limit", 429, "the rule's upload limit is used up";
    DownloadLimit = "download_limit", 429, "the rule's download limit is used up";
    // TLS.
    MalformedTls = "malformed_tls", 400, "the TLS ClientHello could not be parsed";
    EncryptedHello = "encrypted_hello", 403, "Encrypted ClientHello hides the name that policy needs";
    NameMissing = "name_missing", 403, "the connection names no host (no SNI and a literal address)";
    NameMismatch = "name_mismatch", 421, "the dialled name and the TLS server name disagree";
    TlsHandshake = "tls_handshake", 400, "the TLS handshake with the agent failed";
    NotTls = "not_tls", 400, "the rule wants TLS and the agent spoke something else";
    // HTTP.
    MalformedRequest = "malformed_request", 400, "the HTTP request is malformed or ambiguous";
    AuthorityMismatch = "authority_mismatch", 421, "Host or :authority disagrees with the connection's name";
    MethodRefused = "method_refused", 403, "CONNECT and TRACE are never forwarded";
    // Inject.
    Canary = "canary", 403, "a placeholder was sent to a host that its credential is not bound to";
    SecretUnavailable = "secret_unavailable", 503, "the credential could not be obtained";
    InjectRefused = "inject_refused", 403, "the credential cannot be attached to this request";
    // Audit.
    AuditUnavailable = "audit_unavailable", 503, "the decision could not be recorded, so nothing was sent";
    // Forward.
    UpstreamName = "upstream_name", 502, "the upstream's name does not resolve";
    UpstreamPrivate = "upstream_private", 403, "the upstream's name resolves to a private or special address";
    UpstreamConnect = "upstream_connect", 502, "the upstream could not be reached";
    UpstreamCertificate = "upstream_certificate", 502, "the upstream's certificate was not accepted";
    UpstreamTls = "upstream_tls", 502, "the TLS handshake with the upstream failed";
    UpstreamProtocol = "upstream_protocol", 502, "the upstream's answer could not be understood";
    UpstreamTimeout = "upstream_timeout", 504, "the upstream did not answer in time";
    // Control: what operators and agents ask of the daemon.
    ControlRefused = "control_refused", 403, "this process may not ask this of the daemon";
    AttachRefused = "attach_refused", 403, "the cgroup could not be attached";
    ReloadRefused = "reload_refused", 403, "the new configuration has errors, and the old one stays";
    // Either side, any time.
    ClientTimeout = "client_timeout", 408, "the agent did not finish in time";
    Overloaded = "overloaded", 503, "egret is at one of its limits";
    ShuttingDown = "shutting_down", 503, "egret is closing";
    Aborted = "aborted", 502, "the connection ended before its outcome was known";
    Internal = "internal", 500, "egret failed; this is a bug";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was decided, as audit records carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Allow,
    Deny,
    Ask,
    /// Audit mode: it passed, and would have been refused.
    WouldDeny,
    /// Not a decision: an event that is recorded (start, end, outcome).
    Note,
}

impl Decision {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Ask => "ask",
            Self::WouldDeny => "would_deny",
            Self::Note => "note",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_names_are_unique_and_serialise_as_printed() {
        let mut seen = std::collections::HashSet::new();
        for r in Reason::ALL {
            assert!(seen.insert(r.as_str()), "{r} twice");
            let json = serde_json::to_string(r).unwrap();
            assert_eq!(json, format!("\"{r}\""));
            assert!((400..600).contains(&r.http_status()), "{r}");
        }
    }
}
