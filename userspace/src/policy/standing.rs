//! Pure: how one rule stands to the facts of one layer.
//!
//! Allow rules are read strictly, deny and ask rules generously, wherever a server could read the
//! same bytes in two ways. What a `tcp` rule allows includes whatever is inside the connection,
//! and what a `tls` rule allows includes https: so an ancestor's opaque rule does not forbid what
//! a descendant narrows down to single requests.
//!
//! - Host: names match names, addresses match addresses. While only a literal address is known, a
//!   rule for names is [`Standing::Pending`] where SNI or Host may still name one.
//! - Port: an allow rule always has ports; a deny or ask rule without `ports` means every port.
//! - Protocol: a deny or ask rule without `protocol` means every protocol; `tcp` means the same,
//!   `https` and `tls` mean any TLS connection, `http` any connection that is not TLS.
//! - Methods and paths are known at the request layer only; until then a rule that has them is
//!   pending.

use super::matcher::is_exact_method;
use super::path::ambiguity;
use super::{Action, Facts, Host, Layer, Protocol, RequestFacts, Rule};

/// Whether a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    No(Miss),
    /// A later layer can still make it match.
    Pending,
    Yes,
    /// An ask rule that matches only when the request is read generously: it blocks, but a person
    /// cannot approve what can be read in two ways.
    Unclear,
}

/// What did not match, in the order in which it is looked at: the later, the nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Miss {
    Host,
    Port,
    Protocol,
    Method,
    Path,
    /// The path has more than one reading, so no allow rule with `paths` matches it.
    AmbiguousPath(&'static str),
}

impl Rule {
    pub(super) fn standing(&self, facts: &Facts<'_>) -> Standing {
        match self.action {
            Action::Allow => self.allow_standing(facts),
            Action::Deny | Action::Ask => self.barrier_standing(facts),
        }
    }

    fn names_host(&self, host: &Host) -> bool {
        self.hosts.iter().any(|p| p.matches(host))
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }

    fn allow_standing(&self, facts: &Facts<'_>) -> Standing {
        // Checked policies always have it; without it nothing is allowed.
        let Some(protocol) = self.protocol else { return Standing::No(Miss::Protocol) };
        let named = self.names_host(facts.host);
        if !named && !self.may_be_named(facts, protocol) {
            return Standing::No(Miss::Host);
        }
        if !self.has_port(facts.port) {
            return Standing::No(Miss::Port);
        }
        let decided = match (facts.layer, protocol) {
            (Layer::Connect, Protocol::Tcp)
            | (Layer::Opened { .. } | Layer::Request { .. }, Protocol::Tcp)
            | (Layer::Opened { tls: true } | Layer::Request { tls: true }, Protocol::Tls) => {
                Standing::Yes
            }
            (Layer::Connect, Protocol::Https | Protocol::Http | Protocol::Tls)
            | (Layer::Opened { tls: true }, Protocol::Https)
            | (Layer::Opened { tls: false }, Protocol::Http) => Standing::Pending,
            (Layer::Request { tls: true }, Protocol::Https)
            | (Layer::Request { tls: false }, Protocol::Http) => self.allow_request(facts.request),
            (Layer::Opened { tls: true } | Layer::Request { tls: true }, Protocol::Http)
            | (
                Layer::Opened { tls: false } | Layer::Request { tls: false },
                Protocol::Https | Protocol::Tls,
            ) => Standing::No(Miss::Protocol),
        };
        if named || matches!(decided, Standing::No(_)) { decided } else { Standing::Pending }
    }

    /// A literal address whose name may still come: from SNI after TLS has been seen, or from the
    /// Host header of plain HTTP.
    fn may_be_named(&self, facts: &Facts<'_>, protocol: Protocol) -> bool {
        let later = match facts.layer {
            Layer::Connect => protocol != Protocol::Tcp,
            Layer::Opened { tls: false } => protocol == Protocol::Http,
            Layer::Opened { tls: true } | Layer::Request { .. } => false,
        };
        later
            && matches!(facts.host, Host::Ip(_))
            && self.hosts.iter().any(super::HostPattern::is_name)
    }

    fn allow_request(&self, request: Option<RequestFacts<'_>>) -> Standing {
        let Some(request) = request else { return Standing::No(Miss::Method) };
        let method_matches = match &self.methods {
            Some(set) => set.contains(request.method),
            None => is_exact_method(request.method),
        };
        if !method_matches {
            return Standing::No(Miss::Method);
        }
        match &self.paths {
            None => Standing::Yes,
            Some(paths) if paths.iter().any(|p| p.matches(request.path)) => Standing::Yes,
            Some(_) => {
                Standing::No(ambiguity(request.path).map_or(Miss::Path, Miss::AmbiguousPath))
            }
        }
    }

    fn barrier_standing(&self, facts: &Facts<'_>) -> Standing {
        if !self.names_host(facts.host) {
            return Standing::No(Miss::Host);
        }
        if !self.has_port(facts.port) {
            return Standing::No(Miss::Port);
        }
        let of_request = self.methods.is_some() || self.paths.is_some();
        let tls = match facts.layer {
            Layer::Connect => {
                let any = matches!(self.protocol, None | Some(Protocol::Tcp));
                return if any && !of_request { Standing::Yes } else { Standing::Pending };
            }
            Layer::Opened { tls } | Layer::Request { tls } => tls,
        };
        let spoken = match self.protocol {
            None | Some(Protocol::Tcp) => true,
            Some(Protocol::Https | Protocol::Tls) => tls,
            Some(Protocol::Http) => !tls,
        };
        if !spoken {
            return Standing::No(Miss::Protocol);
        }
        match facts.layer {
            Layer::Request { .. } => self.barrier_request(facts.request),
            Layer::Connect | Layer::Opened { .. } if of_request => Standing::Pending,
            Layer::Connect | Layer::Opened { .. } => Standing::Yes,
        }
    }

    fn barrier_request(&self, request: Option<RequestFacts<'_>>) -> Standing {
        let Some(request) = request else { return Standing::Yes };
        if self.methods.as_ref().is_some_and(|set| !set.contains_any_case(request.method)) {
            return Standing::No(Miss::Method);
        }
        if self.paths.as_ref().is_some_and(|ps| !ps.iter().any(|p| p.forbids(request.path))) {
            return Standing::No(Miss::Path);
        }
        let clear = self.methods.as_ref().is_none_or(|set| set.contains(request.method))
            && self.paths.as_ref().is_none_or(|ps| ps.iter().any(|p| p.matches(request.path)));
        if clear || self.action == Action::Deny { Standing::Yes } else { Standing::Unclear }
    }
}
