//! The tests, by subject. Each case is a function that gets the machine and the binary, builds
//! its own world and returns an error that says what was observed.

mod bad_input;
mod basics;
mod credentials;
mod ends;
mod http;
mod names;
mod records;
mod resolvers;
mod slice;
mod ssh;
mod systemd;
mod walls;

use anyhow::Result;
use libtest_mimic::{Failed, Trial};

use crate::fixtures::Bench;
use crate::needs::Need;

/// One test.
pub struct Case {
    pub name: &'static str,
    pub needs: &'static [Need],
    pub run: fn(&Bench) -> Result<()>,
}

const SUBJECTS: &[(&str, &[Case])] = &[
    ("basics", basics::CASES),
    ("http", http::CASES),
    ("credentials", credentials::CASES),
    ("walls", walls::CASES),
    ("names", names::CASES),
    ("resolvers", resolvers::CASES),
    ("ssh", ssh::CASES),
    ("ends", ends::CASES),
    ("records", records::CASES),
    ("bad_input", bad_input::CASES),
    ("systemd", systemd::CASES),
    ("slice", slice::CASES),
];

/// All cases as trials, and a line for each that this machine cannot run.
pub fn trials(bench: &Bench) -> (Vec<Trial>, Vec<String>) {
    let (mut trials, mut skipped, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for (subject, cases) in SUBJECTS {
        for case in *cases {
            let mut is_met = |need: Need| -> bool {
                if let Some((_, met)) = known.iter().find(|(n, _)| *n == need) {
                    return *met;
                }
                let met = need.is_met();
                known.push((need, met));
                met
            };
            let missing: Vec<Need> = case.needs.iter().copied().filter(|n| !is_met(*n)).collect();
            let name = format!("{subject}::{}", case.name);
            let (bench, run) = (bench.clone(), case.run);
            let trial = Trial::test(name.clone(), move || {
                run(&bench).map_err(|error| Failed::from(format!("{error:#}")))
            });
            if missing.is_empty() {
                trials.push(trial);
            } else {
                skipped.push(format!("{name}: this machine lacks {missing:?}"));
                trials.push(trial.with_ignored_flag(true));
            }
        }
    }
    (trials, skipped)
}
