//! Pure: a refusal in the words of protocols that are not HTTP, so that the client can show it.

/// The longest text that is put into another protocol's message.
const LONGEST: usize = 1024;

fn shortened(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(LONGEST)]
}

/// SSH_MSG_DISCONNECT (RFC 4253 section 11.1) in an unencrypted binary packet (section 6), behind
/// the version line.
pub(super) fn ssh(text: &str) -> Vec<u8> {
    const SSH_MSG_DISCONNECT: u8 = 1;
    const HOST_NOT_ALLOWED_TO_CONNECT: u32 = 1;
    let text = shortened(text);
    let mut payload = vec![SSH_MSG_DISCONNECT];
    payload.extend_from_slice(&HOST_NOT_ALLOWED_TO_CONNECT.to_be_bytes());
    payload.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    payload.extend_from_slice(text);
    payload.extend_from_slice(&0u32.to_be_bytes()); // no language tag
    // Length, padding length, payload and padding together are a multiple of 8; padding is >= 4.
    let padding = 4 + (8 - (5 + payload.len() + 4) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap_or(0);
    let mut said = b"SSH-2.0-egret\r\n".to_vec();
    said.extend_from_slice(&length.to_be_bytes());
    said.push(u8::try_from(padding).unwrap_or(4));
    said.extend_from_slice(&payload);
    said.resize(said.len() + padding, 0);
    said
}

/// An ERR packet in place of the server's greeting (MySQL client/server protocol, "ERR_Packet"; before
/// the handshake it has no SQL state).
pub(super) fn mysql(text: &str) -> Vec<u8> {
    const ER_HOST_NOT_PRIVILEGED: u16 = 1130;
    let text = shortened(text);
    let length = u32::try_from(3 + text.len()).unwrap_or(0).to_le_bytes();
    let mut packet = vec![length[0], length[1], length[2], 0, 0xff];
    packet.extend_from_slice(&ER_HOST_NOT_PRIVILEGED.to_le_bytes());
    packet.extend_from_slice(text);
    packet
}

/// An ErrorResponse (PostgreSQL protocol 3.0, "Message Formats").
pub(super) fn postgres(text: &str) -> Vec<u8> {
    let mut fields = Vec::new();
    for (kind, value) in
        [(b'S', &b"FATAL"[..]), (b'V', b"FATAL"), (b'C', b"28000"), (b'M', shortened(text))]
    {
        fields.push(kind);
        fields.extend(value.iter().filter(|b| **b != 0));
        fields.push(0);
    }
    fields.push(0);
    let mut message = vec![b'E'];
    message.extend_from_slice(&u32::try_from(4 + fields.len()).unwrap_or(0).to_be_bytes());
    message.extend_from_slice(&fields);
    message
}

/// A simple error (RESP2 and RESP3).
pub(super) fn redis(text: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(shortened(text)).replace(['\r', '\n'], " ");
    format!("-ERR {text}\r\n").into_bytes()
}

/// What a client's first eight bytes say in PostgreSQL's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Postgres {
    /// It asks whether the server speaks TLS or GSSAPI; `N` says no.
    Encryption,
    /// It begins a session, or asks to cancel a query.
    Startup,
}

/// Reads the beginning of a first message: its length and its code.
pub(super) fn reads_as_postgres(first: &[u8]) -> Option<Postgres> {
    let (length, rest) = first.split_first_chunk()?;
    let code = u32::from_be_bytes(*rest.first_chunk()?);
    match (u32::from_be_bytes(*length), code) {
        (8, 80_877_103 | 80_877_104) => Some(Postgres::Encryption),
        (8..=10_000, 0x0003_0000..=0x0003_ffff) | (16, 80_877_102) => Some(Postgres::Startup),
        _ => None,
    }
}

/// Whether the first bytes are a command for Redis: an array of bulk strings.
pub(super) fn reads_as_redis(first: &[u8]) -> bool {
    matches!(first, [b'*', b'0'..=b'9', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_packets_are_framed() {
        for n in 0..40 {
            let said = ssh(&"x".repeat(n));
            let packet = said.strip_prefix(b"SSH-2.0-egret\r\n").unwrap();
            assert_eq!(packet.len() % 8, 0, "{n}");
            let length = u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize;
            assert_eq!(length + 4, packet.len());
            assert!((4..=255).contains(&packet[4]) && packet[5] == 1);
        }
    }

    #[test]
    fn each_protocol_has_its_own_words() {
        assert_eq!(mysql("no"), b"\x05\0\0\0\xff\x6a\x04no");
        assert_eq!(postgres("n\0o"), b"E\0\0\0\x1eSFATAL\0VFATAL\0C28000\0Mno\0\0");
        assert_eq!(redis("n\r\no"), b"-ERR n  o\r\n");
        assert!(mysql(&"x".repeat(5000)).len() < 1100, "a long text is cut");
    }

    #[test]
    fn first_words_are_told_apart() {
        for (first, read) in [
            (&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], Some(Postgres::Encryption)),
            (b"\0\0\0\x08\x04\xd2\x16\x30", Some(Postgres::Encryption)),
            (b"\0\0\0\x20\0\x03\0\0user", Some(Postgres::Startup)),
            (b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\0", Some(Postgres::Startup)),
            (b"\0\0\0\x09\x04\xd2\x16\x2f", None),
            (b"GET / HTTP/1.1\r\n", None),
            (b"\0\0\0", None),
        ] {
            assert_eq!(reads_as_postgres(first), read, "{}", first.escape_ascii());
            assert!(!reads_as_redis(first));
        }
        assert!(reads_as_redis(b"*1\r\n$4\r\nPING\r\n"));
        assert!(!reads_as_redis(b"* "));
    }
}
