//! Why an upstream's TLS failed, in words that an agent and its operator can act on. The texts
//! name no address and nothing that the upstream wrote.

use std::error::Error as StdError;
use std::fmt;

use rustls::{
    AlertDescription, CertificateError, Error as TlsError, InvalidMessage, PeerIncompatible,
};

use super::upstream::UpstreamTlsError;

/// Why a certificate was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untrusted {
    Expired,
    NotYetValid,
    WrongName,
    UnknownAuthority,
    SelfSigned,
    /// Issued by an authority of egret, the session's or another.
    OwnAuthority,
    Revoked,
    RevocationUnknown,
    Unreadable,
    BadSignature,
    WeakAlgorithm,
    NotForServers,
    NonePresented,
    /// This machine and this policy trust nobody.
    NoRoots,
    Other,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "it has expired",
            Self::NotYetValid => "it is not valid yet, or the clock of this machine is wrong",
            Self::WrongName => "it is for another name",
            Self::UnknownAuthority => "its authority is not trusted here",
            Self::SelfSigned => "it is self-signed",
            Self::OwnAuthority => {
                "it was issued by an authority of egret, which vouches for no upstream"
            }
            Self::Revoked => "it was revoked",
            Self::RevocationUnknown => "it could not be found out whether it was revoked",
            Self::Unreadable => "it cannot be read",
            Self::BadSignature => "its signature is wrong",
            Self::WeakAlgorithm => "its signature is of a kind that is not accepted",
            Self::NotForServers => "it is not for servers",
            Self::NonePresented => "none was presented",
            Self::NoRoots => {
                "no authority is trusted here: the system has no root certificates, and the policy \
                 has no [upstream] ca"
            }
            Self::Other => "it breaks the rules for certificates",
        })
    }
}

impl StdError for Untrusted {}

/// Why a handshake failed for another reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The upstream asks the client to prove who it is.
    ClientCertificate,
    Version,
    UnknownName,
    NothingInCommon,
    NotTls,
    Closed,
    /// Another alert, by its name in RFC 8446.
    Alert(AlertDescription),
    /// What the library says.
    Other(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientCertificate => f.write_str(
                "it wants a client certificate that egret does not have; a rule with protocol = \
                 \"tls\" lets the client present its own",
            ),
            Self::Version => f.write_str("it speaks neither TLS 1.2 nor TLS 1.3"),
            Self::UnknownName => f.write_str("it does not serve this name"),
            Self::NothingInCommon => f.write_str("it accepts no cipher or protocol that egret has"),
            Self::NotTls => f.write_str("it does not speak TLS on this port"),
            Self::Closed => f.write_str("it closed the connection in the middle"),
            Self::Alert(alert) => write!(f, "it refused with the TLS alert {alert:?}"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// What rustls reported through `io::Error`.
pub(super) fn of_io(error: &std::io::Error) -> UpstreamTlsError {
    use std::io::ErrorKind as Kind;
    match error.get_ref().and_then(|e| e.downcast_ref::<TlsError>()) {
        Some(tls) => of_tls(tls),
        None => UpstreamTlsError::Handshake(match error.kind() {
            Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe => Broken::Closed,
            kind => Broken::Other(kind.to_string()),
        }),
    }
}

/// The TLS failure at the bottom of `error`, if there is one: with TLS 1.3 the upstream judges the
/// client only after the client has finished its handshake.
pub fn beneath(error: &(dyn StdError + 'static)) -> Option<UpstreamTlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(of_tls(tls));
        }
        // `source` of an `io::Error` is that of what it holds, which it skips.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

fn of_tls(error: &TlsError) -> UpstreamTlsError {
    let broken = match error {
        TlsError::InvalidCertificate(e) => return UpstreamTlsError::Certificate(untrusted(e)),
        TlsError::NoCertificatesPresented => {
            return UpstreamTlsError::Certificate(Untrusted::NonePresented);
        }
        TlsError::AlertReceived(alert) => of_alert(*alert),
        TlsError::PeerIncompatible(why) => of_incompatible(why),
        TlsError::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => Broken::NotTls,
        TlsError::NoApplicationProtocol => Broken::NothingInCommon,
        other => Broken::Other(other.to_string()),
    };
    UpstreamTlsError::Handshake(broken)
}

fn of_alert(alert: AlertDescription) -> Broken {
    use AlertDescription as Alert;
    match alert {
        // What servers say of a client certificate that they did not get or do not like. egret has
        // none, so it is always the first.
        Alert::CertificateRequired
        | Alert::NoCertificate
        | Alert::BadCertificate
        | Alert::UnknownCA
        | Alert::CertificateUnknown
        | Alert::AccessDenied => Broken::ClientCertificate,
        Alert::ProtocolVersion => Broken::Version,
        Alert::UnrecognisedName => Broken::UnknownName,
        Alert::HandshakeFailure | Alert::InsufficientSecurity | Alert::NoApplicationProtocol => {
            Broken::NothingInCommon
        }
        Alert::CloseNotify => Broken::Closed,
        other => Broken::Alert(other),
    }
}

fn of_incompatible(why: &PeerIncompatible) -> Broken {
    match why {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => Broken::Version,
        _ => Broken::NothingInCommon,
    }
}

fn untrusted(error: &CertificateError) -> Untrusted {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => Untrusted::Expired,
        E::NotValidYet | E::NotValidYetContext { .. } => Untrusted::NotYetValid,
        E::NotValidForName | E::NotValidForNameContext { .. } => Untrusted::WrongName,
        E::UnknownIssuer => Untrusted::UnknownAuthority,
        E::Revoked => Untrusted::Revoked,
        E::UnknownRevocationStatus
        | E::ExpiredRevocationList
        | E::ExpiredRevocationListContext { .. } => Untrusted::RevocationUnknown,
        E::BadEncoding => Untrusted::Unreadable,
        E::BadSignature => Untrusted::BadSignature,
        E::UnsupportedSignatureAlgorithmContext { .. }
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Untrusted::WeakAlgorithm,
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => Untrusted::NotForServers,
        E::Other(other) => other.0.downcast_ref::<Untrusted>().copied().unwrap_or(Untrusted::Other),
        _ => Untrusted::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls_pki_types::UnixTime;

    use super::*;

    fn text(error: TlsError) -> String {
        of_io(&io::Error::new(io::ErrorKind::InvalidData, error)).to_string()
    }

    #[test]
    fn each_failure_has_its_words() {
        use CertificateError as C;
        let certificate = |why| text(TlsError::InvalidCertificate(why));
        let alert = |which| text(TlsError::AlertReceived(which));
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        for (text, words) in [
            (certificate(C::Expired), "has expired"),
            (certificate(C::ExpiredContext { time: now, not_after: now }), "has expired"),
            (certificate(C::NotValidYet), "not valid yet"),
            (certificate(C::NotValidForName), "another name"),
            (certificate(C::UnknownIssuer), "authority is not trusted"),
            (certificate(C::Revoked), "was revoked"),
            (certificate(C::UnknownRevocationStatus), "whether it was revoked"),
            (certificate(C::BadEncoding), "cannot be read"),
            (certificate(C::BadSignature), "signature is wrong"),
            (certificate(C::InvalidPurpose), "not for servers"),
            (certificate(C::UnhandledCriticalExtension), "breaks the rules"),
            (text(TlsError::NoCertificatesPresented), "none was presented"),
            (alert(AlertDescription::CertificateRequired), "wants a client certificate"),
            (alert(AlertDescription::BadCertificate), "wants a client certificate"),
            (alert(AlertDescription::ProtocolVersion), "neither TLS 1.2 nor TLS 1.3"),
            (alert(AlertDescription::UnrecognisedName), "does not serve this name"),
            (alert(AlertDescription::HandshakeFailure), "no cipher or protocol"),
            (alert(AlertDescription::InternalError), "the TLS alert InternalError"),
            (
                text(TlsError::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)),
                "neither TLS 1.2 nor TLS 1.3",
            ),
            (
                text(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)),
                "does not speak TLS",
            ),
            (
                of_io(&io::ErrorKind::UnexpectedEof.into()).to_string(),
                "closed the connection in the middle",
            ),
        ] {
            assert!(text.contains(words), "{words}: {text}");
            assert!(text.starts_with("the upstream's certificate") || text.contains("handshake"));
        }
    }

    #[test]
    fn a_tls_failure_is_found_beneath_others() {
        let tls = || TlsError::AlertReceived(AlertDescription::CertificateRequired);
        let wrapped = io::Error::other(io::Error::other(tls()));
        let want = UpstreamTlsError::Handshake(Broken::ClientCertificate).to_string();
        assert_eq!(beneath(&wrapped).unwrap().to_string(), want);
        assert_eq!(beneath(&tls()).unwrap().to_string(), want);
        assert!(beneath(&io::Error::other("another")).is_none());
    }
}
