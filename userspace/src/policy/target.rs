//! Pure: what a person names when asking about a policy: a method and a URL.

use serde::Serialize;

use super::{Facts, Host, Layer, Protocol, RequestFacts};

/// A request, or for `tls://` and `tcp://` a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// `None` for connections.
    pub method: Option<String>,
    #[serde(serialize_with = "protocol_name")]
    pub protocol: Protocol,
    pub host: Host,
    pub port: u16,
    /// Raw, without the query; empty for connections.
    pub path: String,
}

fn protocol_name<S: serde::Serializer>(p: &Protocol, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(p.as_str())
}

/// Why a text is not a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}`: {why}", text.escape_debug())]
pub struct TargetError {
    pub text: String,
    pub why: String,
}

impl Target {
    /// Reads a method and a URL with scheme https, http, tls or tcp.
    ///
    /// # Errors
    /// Says what is wrong with the URL.
    pub fn parse(method: Option<&str>, url: &str) -> Result<Self, TargetError> {
        let err = |why: &str| TargetError { text: url.into(), why: why.into() };
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| err("write the scheme: https://, http://, tls:// or tcp://"))?;
        let protocol = Protocol::parse(&scheme.to_ascii_lowercase())
            .ok_or_else(|| err("the scheme is one of https, http, tls and tcp"))?;
        let rest = rest.split('#').next().unwrap_or(rest);
        let rest = rest.split('?').next().unwrap_or(rest);
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(err("a URL with a user name is never sent; leave it out"));
        }
        let (host, port) = Host::parse_authority(authority)
            .map_err(|e| TargetError { text: url.into(), why: e.to_string() })?;
        let port = port
            .or(protocol.default_port())
            .ok_or_else(|| err("tcp has no usual port: write tcp://HOST:PORT"))?;
        let requests = matches!(protocol, Protocol::Https | Protocol::Http);
        if !requests && !matches!(path, "" | "/") {
            return Err(err("a tls or tcp connection has no path"));
        }
        Ok(Self {
            method: requests.then(|| method.unwrap_or("GET").to_owned()),
            protocol,
            host,
            port,
            path: match (requests, path) {
                (false, _) => String::new(),
                (true, "") => "/".into(),
                (true, path) => path.into(),
            },
        })
    }

    /// `GET https://…` or `tcp://…`, in one text.
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub fn parse_line(line: &str) -> Result<Self, TargetError> {
        match line.trim().split_once(' ') {
            Some((method, url)) => Self::parse(Some(method), url.trim_start()),
            None => Self::parse(None, line.trim()),
        }
    }

    /// The facts as they grow, layer by layer; the last one is the most that is ever known.
    pub fn layers(&self) -> Vec<Facts<'_>> {
        let facts = |layer, request| Facts { layer, host: &self.host, port: self.port, request };
        let tls = matches!(self.protocol, Protocol::Https | Protocol::Tls);
        let mut out = vec![facts(Layer::Connect, None), facts(Layer::Opened { tls }, None)];
        if let Some(method) = &self.method {
            let request = RequestFacts { method, path: &self.path };
            out.push(facts(Layer::Request { tls }, Some(request)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let t = |line: &str| {
            Target::parse_line(line)
                .map(|t| (t.method.unwrap_or_default(), t.host.to_string(), t.port, t.path))
        };
        let is = |m: &str, h: &str, p, path: &str| Ok((m.into(), h.into(), p, path.into()));
        assert_eq!(t("GET https://API.x.test"), is("GET", "api.x.test", 443, "/"));
        assert_eq!(t("POST http://x.test:81/a/../b?q=/c#d"), is("POST", "x.test", 81, "/a/../b"));
        assert_eq!(t("https://x.test?q"), is("GET", "x.test", 443, "/"));
        assert_eq!(t("https://[::1]:8443/a"), is("GET", "::1", 8443, "/a"));
        assert_eq!(t("tcp://db.test:5432"), is("", "db.test", 5432, ""));
        assert_eq!(t("tls://x.test/"), is("", "x.test", 443, ""));
        for bad in [
            "",
            "GET x.test",
            "GET ftp://x.test",
            "tcp://x.test",
            "https://u:p@x.test/",
            "https:///a",
            "https://127.1/",
            "https://x.test:0/",
            "tls://x.test/a",
            "GET  POST https://x.test",
        ] {
            assert!(t(bad).is_err(), "{bad}");
        }
    }
}
