//! Pure: what egret and the init process say to each other, one packet per message, and how the
//! plan crosses.

use serde::{Deserialize, Serialize};

use super::plan::Plan;

/// The hidden first argument that makes the program an init process.
pub(super) const INIT_ARGUMENT: &str = "__init";

/// What spawn adds to the plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) plan: Plan,
    /// Which of 0, 1 and 2 become the new terminal; `None`: no terminal.
    pub(super) terminal: Option<[bool; 3]>,
    /// Whether the command begins in the foreground of its terminal.
    pub(super) foreground: bool,
    /// Soft limits that egret changed for itself and that the command gets back:
    /// (RLIMIT number, soft value).
    pub(super) limits: Vec<(u32, u64)>,
}

/// From init to egret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Event {
    /// Carries the terminal's master as its descriptor. Init waits for [`Request::Go`].
    Terminal,
    Started,
    Failed(Failure),
    /// The command was stopped by this signal.
    Stopped(i32),
    Exited(i32),
    Killed(i32),
}

/// Why the command was not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) step: Step,
    /// What was being done, with the path or name.
    pub(super) doing: String,
    pub(super) errno: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Making the world.
    Setup,
    /// The exec of the command itself.
    Exec,
}

/// From egret to init.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    Go,
    Signal(i32),
    /// Continue a stopped command, in the foreground of its terminal or not.
    Resume {
        foreground: bool,
    },
}

/// The order as bytes: the lengths of its JSON and of the bundle, the JSON, then the bundle and
/// the PKCS #12 store as they are (half a megabyte that needs no escaping).
pub(super) fn encode(order: &Order) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(order)?;
    let trust = &order.plan.trust;
    let lengths = [json.len(), trust.bundle_pem.len()].map(|n| (n as u64).to_le_bytes());
    let parts: [&[u8]; 5] =
        [&lengths[0], &lengths[1], &json, trust.bundle_pem.as_bytes(), &trust.pkcs12];
    Ok(parts.concat())
}

/// The inverse of [`encode`]; `None` for anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<Order> {
    let (json, rest) = bytes.split_first_chunk::<8>()?;
    let (bundle, rest) = rest.split_first_chunk::<8>()?;
    let length = |n: &[u8; 8]| usize::try_from(u64::from_le_bytes(*n)).ok();
    let (json, rest) = rest.split_at_checked(length(json)?)?;
    let (bundle, pkcs12) = rest.split_at_checked(length(bundle)?)?;
    let mut order: Order = serde_json::from_slice(json).ok()?;
    order.plan.trust.bundle_pem = std::str::from_utf8(bundle).ok()?.to_owned();
    order.plan.trust.pkcs12 = pkcs12.to_vec();
    Some(order)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::contain::user::Target;

    #[test]
    fn an_order_crosses_unchanged_and_a_torn_one_not_at_all() {
        let odd = OsString::from_vec(vec![b'a', 0xff, b'\n']);
        let mut plan = Plan::new(vec![odd.clone()], Target::root());
        plan.env = vec![("A".into(), odd.clone())];
        plan.trust.bundle_pem = "PEM \u{e4}".into();
        plan.trust.pkcs12 = vec![0, 1, 2, 255];
        let order = Order {
            plan,
            terminal: Some([true, false, true]),
            foreground: true,
            limits: vec![(4, 7)],
        };
        let bytes = encode(&order).unwrap();
        let back = decode(&bytes).unwrap();
        assert_eq!(back.plan.argv, [odd]);
        assert_eq!(back.plan.trust.bundle_pem, "PEM \u{e4}");
        assert_eq!(back.plan.trust.pkcs12, [0, 1, 2, 255]);
        assert_eq!(back.terminal, Some([true, false, true]));
        for cut in 0..bytes.len() - 4 {
            assert!(decode(&bytes[..cut]).is_none(), "{cut}");
        }
    }
}
