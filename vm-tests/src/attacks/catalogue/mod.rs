//! The catalogue: each line with its probes.

mod control;
mod kernel;
mod known;
mod names;
mod sockets;
mod tls;

use super::kinds::{Attack, Known, Probe, Setup, Sign, Special};
#[cfg(test)]
pub(in crate::attacks) use known::ROOT;

/// Every line, by number.
pub(super) fn all() -> impl Iterator<Item = &'static Attack> {
    let kernel = sockets::LINES.iter().chain(kernel::LINES);
    kernel.chain(names::LINES).chain(tls::LINES).chain(control::LINES)
}

/// A line with probes and nothing else.
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
        run: Known::Holds,
        attach: Known::Holds,
    }
}

impl Attack {
    const fn specials(mut self, specials: &'static [Special]) -> Self {
        self.specials = specials;
        self
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

    pub(in crate::attacks) const fn in_run(mut self, known: Known) -> Self {
        self.run = known;
        self
    }

    pub(in crate::attacks) const fn in_attach(mut self, known: Known) -> Self {
        self.attach = known;
        self
    }

    const fn both(self, known: Known) -> Self {
        self.in_run(known).in_attach(known)
    }

    /// In a run it makes no sense, and why.
    const fn not_in_run(self, why: &'static str) -> Self {
        self.in_run(Known::Absent(why))
    }

    /// Attached it makes no sense, and why.
    const fn not_in_attach(self, why: &'static str) -> Self {
        self.in_attach(Known::Absent(why))
    }
}
