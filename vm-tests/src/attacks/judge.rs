//! Pure: from what a probe did outside and inside to a result.

use std::collections::BTreeMap;

use super::kinds::{Known, Mode, Probe, Sign, Who};

/// What was seen of one probe in one place.
#[derive(Clone, Debug, Default)]
pub(in crate::attacks) struct Seen {
    /// `reached`, `done`, `sent`, `refused`, `missing` or `broken`, as the probe says.
    pub(in crate::attacks) said: String,
    pub(in crate::attacks) detail: String,
    /// The control that the probe carries succeeded.
    pub(in crate::attacks) control: bool,
    /// What crossed the link while it ran; and what of it was no DNS message.
    pub(in crate::attacks) packets: Vec<String>,
    pub(in crate::attacks) dialled: Vec<String>,
    /// The upstream saw its mark.
    pub(in crate::attacks) upstream: bool,
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::attacks) enum Outcome {
    /// The control got through and the attack did not.
    Held,
    Leaked(String),
    /// It gets through, and SECURITY.md says so in this sentence.
    Stated(&'static str),
    Skipped(String),
    /// A control inside: it got through, as it must.
    Passed,
}

pub(in crate::attacks) type Findings = BTreeMap<(&'static str, Who), Outcome>;

/// The result of one probe.
pub(in crate::attacks) fn outcome(
    probe: &Probe,
    mode: Mode,
    who: Who,
    control: Option<&Seen>,
    inside: Option<&Seen>,
) -> Outcome {
    let skipped = |why: &str| Outcome::Skipped(why.to_owned());
    let Some(inside) = inside else { return skipped("it did not run") };
    let through = sign_of(probe.sign, inside);
    if probe.passes {
        return match through {
            Some(_) => Outcome::Passed,
            None => Outcome::Skipped(format!("control inside failed: {}", words(inside))),
        };
    }
    // A leak is a leak, whatever became of the control.
    if let Some(what) = through {
        return match probe.known(mode) {
            Known::Through(whom, sentence) if whom.contains(&who) => Outcome::Stated(sentence),
            Known::Through(..) | Known::Holds | Known::Absent(_) => Outcome::Leaked(what),
        };
    }
    if inside.said == "broken" {
        return Outcome::Skipped(format!("it broke inside: {}", inside.detail));
    }
    let works = match (probe.sign, control) {
        (Sign::Inside, _) => inside.control,
        (_, Some(control)) => sign_of(probe.sign, control).is_some(),
        (_, None) => false,
    };
    if works {
        return Outcome::Held;
    }
    let seen = if probe.sign == Sign::Inside { Some(inside) } else { control };
    Outcome::Skipped(format!("control failed: {}", seen.map_or("it did not run".into(), words)))
}

/// What shows that it got through, or nothing.
fn sign_of(sign: Sign, seen: &Seen) -> Option<String> {
    let said = |which: &[&str]| which.contains(&seen.said.as_str());
    let packets = match sign {
        Sign::Wire => &seen.packets[..],
        Sign::Dial => &seen.dialled,
        Sign::Done | Sign::Upstream | Sign::Inside => &[],
    };
    if let Some(first) = packets.first() {
        let count = packets.len();
        return Some(format!("{count} packets crossed the link, the first {first}"));
    }
    match sign {
        Sign::Wire | Sign::Dial if said(&["reached"]) => Some("the canary answered".into()),
        Sign::Done | Sign::Inside if said(&["reached", "done"]) => {
            Some(format!("it could: {}", seen.detail))
        }
        Sign::Upstream if seen.upstream => Some("the upstream saw it".into()),
        _ => None,
    }
}

fn words(seen: &Seen) -> String {
    format!("{} {}", seen.said, seen.detail).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attacks::catalogue::{ROOT, probe};

    fn seen(said: &str, packets: usize, control: bool) -> Seen {
        Seen { said: said.into(), control, packets: vec!["p".into(); packets], ..Seen::default() }
    }

    #[test]
    fn what_is_known_of_one_mode_says_nothing_of_the_other() {
        let probe = probe("a", "a", "", Sign::Done).in_attach(Known::Through(ROOT, "x"));
        let inside = seen("done", 0, false);
        let of = |mode, who| outcome(&probe, mode, who, None, Some(&inside));
        assert_eq!(of(Mode::Attach, Who::Root), Outcome::Stated("x"));
        for (mode, who) in
            [(Mode::Attach, Who::User), (Mode::Run, Who::Root), (Mode::Run, Who::User)]
        {
            assert!(matches!(of(mode, who), Outcome::Leaked(_)), "{mode:?} {who:?}");
        }
    }

    #[test]
    fn nothing_is_held_without_its_control() {
        use Outcome::{Held, Leaked, Skipped, Stated};
        let kind = |outcome: &Outcome| match outcome {
            Held => "held",
            Leaked(_) => "leaked",
            Stated(_) => "stated",
            Skipped(_) => "skipped",
            Outcome::Passed => "passed",
        };
        let wire = probe("a", "a", "", Sign::Wire);
        let done = probe("a", "a", "", Sign::Done);
        let through = done.in_run(Known::Through(ROOT, "x"));
        let inner = probe("a", "a", "", Sign::Inside);
        let dial = probe("a", "a", "", Sign::Dial);
        let dns = seen("refused", 2, false);
        let dialled = Seen { dialled: vec!["p".into()], ..dns.clone() };
        for (probe, who, control, inside, expected) in [
            (wire, Who::User, Some(seen("sent", 1, false)), seen("refused", 0, false), "held"),
            (wire, Who::User, Some(seen("sent", 0, false)), seen("refused", 0, false), "skipped"),
            (wire, Who::User, None, seen("refused", 0, false), "skipped"),
            (wire, Who::User, None, seen("refused", 1, false), "leaked"),
            (wire, Who::User, Some(seen("sent", 1, false)), seen("reached", 0, false), "leaked"),
            (wire, Who::User, Some(seen("sent", 1, false)), seen("broken", 0, false), "skipped"),
            (done, Who::User, Some(seen("done", 0, false)), seen("refused", 0, false), "held"),
            (done, Who::User, Some(seen("done", 0, false)), seen("done", 0, false), "leaked"),
            (
                done,
                Who::User,
                Some(seen("missing", 0, false)),
                seen("missing", 0, false),
                "skipped",
            ),
            (through, Who::Root, None, seen("done", 0, false), "stated"),
            (through, Who::User, None, seen("done", 0, false), "leaked"),
            (inner, Who::Root, None, seen("refused", 0, true), "held"),
            (inner, Who::Root, None, seen("refused", 0, false), "skipped"),
            (wire.passes(), Who::Root, None, seen("sent", 1, false), "passed"),
            (wire.passes(), Who::Root, None, seen("sent", 0, false), "skipped"),
            (dial, Who::User, Some(dns.clone()), dns.clone(), "skipped"),
            (dial, Who::User, Some(dialled.clone()), dns.clone(), "held"),
            (dial, Who::User, Some(dialled.clone()), dialled, "leaked"),
        ] {
            let got = outcome(&probe, Mode::Run, who, control.as_ref(), Some(&inside));
            assert_eq!(kind(&got), expected, "{:?} {control:?} {inside:?}", probe.sign);
        }
    }
}
