//! Pure: the little of DER (ITU-T X.690) that trust stores need.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const T61_STRING: u8 = 0x14;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const VISIBLE_STRING: u8 = 0x1a;
pub(super) const BMP_STRING: u8 = 0x1e;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// `[0]`, constructed.
pub(super) const CONTEXT_0: u8 = 0xa0;

/// Tag, length and content.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = Vec::with_capacity(len + 6);
    out.push(tag);
    if len < 0x80 {
        out.push(len.to_le_bytes()[0]);
    } else {
        let bytes = len.to_be_bytes();
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        let digits = &bytes[zeros..];
        out.push(0x80 | digits.len().to_le_bytes()[0]);
        out.extend(digits);
    }
    out.extend(content);
    out
}

/// [`element`] around several parts.
pub(super) fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    element(tag, &parts.concat())
}

/// Splits the first element off: its tag, its content, the rest.
pub(super) fn read(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let digits = usize::from(first & 0x7f);
        if digits == 0 || digits > 4 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(digits)?;
        (digits.iter().fold(0, |n, d| n << 8 | usize::from(*d)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// The content of the first element if it has this tag, and the rest.
pub(super) fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    read(bytes).filter(|(t, _, _)| *t == tag).map(|(_, content, rest)| (content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_torn_input_is_refused() {
        for len in [0, 1, 0x7f, 0x80, 0xff, 0x100, 70_000] {
            let content = vec![7; len];
            let mut bytes = element(OCTET_STRING, &content);
            bytes.push(0xee);
            assert_eq!(read(&bytes), Some((OCTET_STRING, &content[..], &[0xee][..])));
            for cut in 0..bytes.len().min(200) - 1 {
                assert_eq!(read(&bytes[..cut]), None);
            }
        }
        assert_eq!(read(&[0x30, 0x80, 0, 0]), None); // indefinite length
        assert_eq!(expect(SEQUENCE, &element(SET, b"")), None);
    }
}
