//! Pure: reads a TLS ClientHello from the first bytes of a connection, as far as policy needs it.
//!
//! The parser answers "found", "not TLS", "need more" or "malformed"; the loop that reads bytes
//! stands in `peek`. A ClientHello may be fragmented over several records; everything is bounded.
//!
//! **Encrypted ClientHello.** By its bytes alone a real ECH extension cannot be told from GREASE.
//! egret decides on the outer name, and where it ends the TLS itself nothing encrypted is ever
//! honoured: a GREASE client goes on, a client with a real ECH configuration sees that its offer
//! was not accepted and gives up. Where bytes are passed through unopened, the inner name could
//! reach the upstream, so a hello with the extension is refused there (`ClientHello::ech`).

use crate::policy::HostName;

/// No ClientHello needs more than this; larger is malformed.
pub const MAX_HELLO: usize = 64 * 1024;

/// Most records over which one ClientHello may be spread. One byte per record is an attack.
const MAX_RECORDS: usize = 64;

/// RFC 8446 section 5.1: the largest plaintext fragment of one record.
const MAX_FRAGMENT: usize = 1 << 14;

const EXT_SERVER_NAME: u16 = 0;
const EXT_ALPN: u16 = 16;
const EXT_SUPPORTED_VERSIONS: u16 = 43;
const EXT_ECH: u16 = 0xfe0d;

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Found(ClientHello),
    NotTls,
    NeedMore,
    /// TLS, but not a ClientHello that may be trusted; says what is wrong.
    Malformed(&'static str),
}

/// The server name the client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    Absent,
    Name(HostName),
    /// Present but not a host name: an address, a NUL byte, an empty or overlong text, anything
    /// but ASCII.
    Malformed,
}

/// What policy and termination need of a ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    pub server_name: ServerName,
    /// Protocols offered by ALPN, in the client's order.
    pub alpn: Vec<Vec<u8>>,
    /// An `encrypted_client_hello` extension is present, real or GREASE.
    pub ech: bool,
    /// `supported_versions`, or the legacy version alone where that extension is absent.
    pub versions: Vec<u16>,
}

/// Reads what `bytes`, the first bytes of a connection, say so far.
pub fn parse(bytes: &[u8]) -> Parsed {
    let message = match handshake_message(bytes) {
        Ok(message) => message,
        Err(parsed) => return parsed,
    };
    match hello(&message) {
        Ok(found) => Parsed::Found(found),
        Err(why) => Parsed::Malformed(why),
    }
}

/// Joins record fragments to the body of the first handshake message, which must be a ClientHello.
fn handshake_message(bytes: &[u8]) -> Result<Vec<u8>, Parsed> {
    let mut rest = bytes;
    let mut joined: Vec<u8> = Vec::new();
    for _ in 0..MAX_RECORDS {
        match rest {
            [] => return Err(Parsed::NeedMore),
            [0x16, ..] => {}
            _ if joined.is_empty() => return Err(Parsed::NotTls),
            _ => return Err(Parsed::Malformed("another record inside the ClientHello")),
        }
        match rest.get(1) {
            Some(3) | None => {}
            Some(_) if joined.is_empty() => return Err(Parsed::NotTls),
            Some(_) => return Err(Parsed::Malformed("unknown record version")),
        }
        let Some((header, after)) = rest.split_first_chunk::<5>() else {
            return Err(Parsed::NeedMore);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > MAX_FRAGMENT {
            return Err(Parsed::Malformed("record length out of range"));
        }
        let have = length.min(after.len());
        joined.extend_from_slice(&after[..have]);
        if joined.first().is_some_and(|kind| *kind != 1) {
            return Err(Parsed::Malformed("the first message is not a ClientHello"));
        }
        if let Some((head, body)) = joined.split_first_chunk::<4>() {
            let wanted =
                usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            if wanted > MAX_HELLO {
                return Err(Parsed::Malformed("the ClientHello is too large"));
            }
            // Judged by what the record announces, so that it does not matter how much of it is
            // there already.
            if body.len() + (length - have) > wanted {
                return Err(Parsed::Malformed("bytes behind the ClientHello in its record"));
            }
            if body.len() == wanted {
                return Ok(body.to_vec());
            }
        }
        if have < length {
            return Err(Parsed::NeedMore);
        }
        rest = &after[length..];
    }
    Err(Parsed::Malformed("the ClientHello is spread over too many records"))
}

/// A cursor over bytes whose every read is checked.
struct Reader<'a>(&'a [u8]);

const SHORT: &str = "a length in the ClientHello points outside it";

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<usize, &'static str> {
        Ok(usize::from(self.take(1)?[0]))
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        let b = self.take(2)?;
        Ok(u16::from_be_bytes([b[0], b[1]]))
    }

    /// A vector with an 8-bit length.
    fn vec8(&mut self) -> Result<Reader<'a>, &'static str> {
        let n = self.u8()?;
        self.take(n).map(Reader)
    }

    /// A vector with a 16-bit length.
    fn vec16(&mut self) -> Result<Reader<'a>, &'static str> {
        let n = self.u16()?;
        self.take(usize::from(n)).map(Reader)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn hello(message: &[u8]) -> Result<ClientHello, &'static str> {
    let mut r = Reader(message);
    let legacy_version = r.u16()?;
    r.take(32)?; // random
    if r.vec8()?.0.len() > 32 {
        return Err("session id too long");
    }
    let suites = r.vec16()?;
    if suites.is_empty() || suites.0.len() % 2 != 0 {
        return Err("odd list of cipher suites");
    }
    if r.vec8()?.is_empty() {
        return Err("no compression method");
    }
    let mut found = ClientHello {
        server_name: ServerName::Absent,
        alpn: Vec::new(),
        ech: false,
        versions: vec![legacy_version],
    };
    if r.is_empty() {
        return Ok(found);
    }
    let mut extensions = r.vec16()?;
    if !r.is_empty() {
        return Err("bytes behind the extensions");
    }
    let mut seen: Vec<u16> = Vec::new();
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.vec16()?;
        if seen.contains(&kind) {
            return Err("an extension stands twice");
        }
        seen.push(kind);
        extension(&mut found, kind, body)?;
    }
    Ok(found)
}

fn extension(found: &mut ClientHello, kind: u16, mut body: Reader<'_>) -> Result<(), &'static str> {
    match kind {
        EXT_SERVER_NAME => found.server_name = server_name(body)?,
        EXT_ALPN => {
            let mut list = body.vec16()?;
            while !list.is_empty() {
                let name = list.vec8()?;
                if name.is_empty() {
                    return Err("an empty ALPN name");
                }
                found.alpn.push(name.0.to_vec());
            }
        }
        EXT_SUPPORTED_VERSIONS => {
            let mut list = body.vec8()?;
            found.versions.clear();
            while !list.is_empty() {
                found.versions.push(list.u16()?);
            }
        }
        EXT_ECH => found.ech = true,
        _ => return Ok(()),
    }
    Ok(())
}

/// RFC 6066 section 3: a list that may hold one name of type host_name.
fn server_name(mut body: Reader<'_>) -> Result<ServerName, &'static str> {
    let mut list = body.vec16()?;
    if !body.is_empty() {
        return Err("bytes behind the server name list");
    }
    let mut name = None;
    while !list.is_empty() {
        let kind = list.u8()?;
        let text = list.vec16()?;
        if kind != 0 || name.is_some() {
            return Err("a server name list with more than one host name");
        }
        name = Some(text.0);
    }
    let text = name.ok_or("an empty server name list")?;
    Ok(plain_name(text).map_or(ServerName::Malformed, ServerName::Name))
}

/// Only the name as it is written: where TLS is passed through unopened the upstream reads these
/// very bytes, so nothing may be mapped as it is for people (full-width letters, soft hyphens).
fn plain_name(text: &[u8]) -> Option<HostName> {
    let text = str::from_utf8(text).ok().filter(|t| t.is_ascii())?;
    let name = HostName::parse(text).ok()?;
    text.strip_suffix('.').unwrap_or(text).eq_ignore_ascii_case(name.as_str()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a ClientHello as rustls writes it.
    fn recorded(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
        let mut config = rustls::ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name).unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut out = Vec::new();
        client.write_tls(&mut out).unwrap();
        out
    }

    /// Spreads the handshake bytes of one record over records of `size` bytes.
    fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in hello[5..].chunks(size) {
            out.extend_from_slice(&[0x16, 3, 1]);
            out.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }

    fn found(bytes: &[u8]) -> ClientHello {
        match parse(bytes) {
            Parsed::Found(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_name_alpn_and_versions() {
        let hello = found(&recorded("API.github.com", &[b"h2", b"http/1.1"]));
        assert_eq!(hello.server_name, ServerName::Name(HostName::parse("api.github.com").unwrap()));
        assert_eq!(hello.alpn, vec![b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(hello.versions.contains(&0x0304) && hello.versions.contains(&0x0303));
        assert!(!hello.ech);
    }

    #[test]
    fn an_address_as_server_name_is_absent() {
        // rustls sends no server name for an address.
        assert_eq!(found(&recorded("192.0.2.1", &[])).server_name, ServerName::Absent);
    }

    #[test]
    fn every_prefix_needs_more_and_never_panics() {
        for hello in [
            recorded("example.com", &[b"h2"]),
            fragmented(&recorded("example.com", &[b"h2"]), 100),
            fragmented(&recorded("192.0.2.1", &[]), 7),
        ] {
            for n in 0..hello.len() {
                assert_eq!(parse(&hello[..n]), Parsed::NeedMore, "prefix {n}");
            }
            assert!(matches!(parse(&hello), Parsed::Found(_)));
        }
    }

    #[test]
    fn every_single_byte_change_is_handled() {
        let hello = recorded("example.com", &[b"h2", b"http/1.1"]);
        for at in 0..hello.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = hello.clone();
                changed[at] ^= flip;
                let _ = parse(&changed);
            }
        }
    }

    #[test]
    fn what_is_not_tls() {
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", b"\x16\x02\x00", b"\0"] {
            assert_eq!(parse(bytes), Parsed::NotTls, "{bytes:?}");
        }
    }

    #[test]
    fn bounds() {
        let hello = recorded("example.com", &[]);
        let tiny = fragmented(&hello, 1);
        assert!(matches!(parse(&tiny), Parsed::Malformed(_)), "one byte per record");
        let huge = [0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
        assert!(matches!(parse(&huge), Parsed::Malformed(_)), "16 MiB announced");
        assert!(matches!(parse(&[0x16, 3, 1, 0, 0]), Parsed::Malformed(_)), "empty record");
        assert!(matches!(parse(&[0x16, 3, 1, 0x40, 1]), Parsed::Malformed(_)), "long record");
        assert!(matches!(parse(&[0x16, 3, 1, 0, 4, 2, 0, 0, 0]), Parsed::Malformed(_)), "a server");
        let mut trailing = hello.clone();
        let length = u16::from_be_bytes([hello[3], hello[4]]) + 1;
        trailing[3..5].copy_from_slice(&length.to_be_bytes());
        assert!(matches!(parse(&trailing), Parsed::Malformed(_)), "bytes behind it, announced");
        trailing.push(0);
        assert!(matches!(parse(&trailing), Parsed::Malformed(_)), "bytes behind it");
    }

    /// A minimal ClientHello with the given extensions.
    fn with_extensions(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut ext = Vec::new();
        for (kind, body) in extensions {
            ext.extend_from_slice(&kind.to_be_bytes());
            ext.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
            ext.extend_from_slice(body);
        }
        let mut body = vec![3, 3];
        body.extend_from_slice(&[0; 32]);
        body.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend_from_slice(&u16::try_from(ext.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&ext);
        let mut out = vec![0x16, 3, 1];
        out.extend_from_slice(&u16::try_from(body.len() + 4).unwrap().to_be_bytes());
        out.extend_from_slice(&[1, 0]);
        out.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&body);
        out
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        let n = u16::try_from(name.len()).unwrap();
        let mut out = (n + 3).to_be_bytes().to_vec();
        out.push(0);
        out.extend_from_slice(&n.to_be_bytes());
        out.extend_from_slice(name);
        out
    }

    #[test]
    fn names_that_are_not_names() {
        let mapped = ["\u{ff45}xample.com", "ex\u{ad}ample.com", "b\u{fc}cher.example"];
        let bad = [&b""[..], b"\xff\xfe", b"192.0.2.1", b"ev_il-.example", b"a..b"];
        for bad in bad.into_iter().chain(mapped.map(str::as_bytes)) {
            let hello = found(&with_extensions(&[(0, sni(bad))]));
            assert_eq!(hello.server_name, ServerName::Malformed, "{bad:?}");
        }
        let control = found(&with_extensions(&[(0, sni(b"ok.example"))]));
        assert!(matches!(control.server_name, ServerName::Name(_)));
        let twice = with_extensions(&[(0, sni(b"a.example")), (0, sni(b"b.example"))]);
        assert!(matches!(parse(&twice), Parsed::Malformed(_)));
    }

    #[test]
    fn an_encrypted_hello_is_seen() {
        assert!(found(&with_extensions(&[(0xfe0d, vec![0; 40])])).ech);
        assert!(!found(&with_extensions(&[(0x0a0a, vec![])])).ech);
    }
}
