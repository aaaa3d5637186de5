//! The catalogue: each line with its probes.

mod control;
mod kernel;
mod names;
mod tls;

use super::{Attack, Probe, Setup, Sign};

/// Every line, by number.
pub(super) fn all() -> impl Iterator<Item = &'static Attack> {
    [kernel::LINES, names::LINES, tls::LINES, control::LINES].into_iter().flatten()
}

/// A line with nothing in it.
const fn line(number: u8, title: &'static str, probes: &'static [Probe]) -> Attack {
    Attack { number, title, probes, specials: &[], stated: &[], not_yet: &[] }
}

/// An ordinary probe: its control is made by the same user.
pub(in crate::attacks) const fn probe(
    id: &'static str,
    call: &'static str,
    args: &'static str,
    sign: Sign,
) -> Probe {
    Probe {
        id,
        call,
        args,
        sign,
        setup: Setup::Plain,
        by_root: false,
        needs_ipv6: false,
        passes: false,
        stated_for_root: None,
    }
}

impl Probe {
    const fn by_root(mut self) -> Self {
        self.by_root = true;
        self
    }

    const fn ipv6(mut self) -> Self {
        self.needs_ipv6 = true;
        self
    }

    const fn setup(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    pub(in crate::attacks) const fn passes(mut self) -> Self {
        self.passes = true;
        self
    }

    pub(in crate::attacks) const fn stated_for_root(mut self, sentence: &'static str) -> Self {
        self.stated_for_root = Some(sentence);
        self
    }
}
