//! One client: both of its calls, and what the servers saw of them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::catalogue::{Client, Proof};
use super::site::Site;
use crate::fixtures::Ended;

/// For a server to write down what has reached it.
const PATIENCE: Duration = Duration::from_secs(10);

/// For it to write down what should not have reached it.
const SETTLE: Duration = Duration::from_millis(500);

/// What became of a client.
pub(super) enum Played {
    Works,
    /// This is not installed.
    Missing(String),
}

/// # Errors
/// Where an agent can read the secret in an environment or on a command line that it sees.
pub(super) fn keeps_the_secret(site: &Site) -> Result<()> {
    let read = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'";
    let text = printed(&site.agent(read)?);
    ensure!(text.contains("WORK=/"), "control: the agent's own environment is not read\n{text}");
    ensure!(!text.contains(site.secret()), "the agent can read the secret\n{text}");
    Ok(())
}

/// # Errors
/// What did not come out as promised, with what the client printed.
pub(super) fn play(site: &Site, client: &Client) -> Result<Played> {
    if let Some(what) = client.needs.iter().find(|need| !site.has(need)) {
        return Ok(Played::Missing((*what).to_owned()));
    }
    site.forget()?;
    let allowed = site.agent(client.allowed)?;
    let text = printed(&allowed);
    let seen = || site.seen().unwrap_or_default().join("\n");
    ensure!(allowed.code == 0, "the allowed call exits with {}\n{text}\n{}", allowed.code, seen());
    ensure!(
        text.contains(client.prints),
        "the allowed call does not print {:?}\n{text}",
        client.prints
    );
    ensure!(!text.contains(site.secret()), "the client saw the secret\n{text}");
    proven(site, client.proof, true).with_context(|| text.clone())?;

    settle(site, client.proof)?;
    site.forget()?;
    let refused = site.agent(client.refused)?;
    let text = printed(&refused);
    ensure!(!text.contains(site.secret()), "the refused client saw the secret\n{text}");
    ensure!(
        text.contains(client.shows),
        "the refused call does not show {:?}\n{text}",
        client.shows
    );
    ensure!(refused.code != 0 || !client.fails, "the refused call exits with 0\n{text}");
    proven(site, client.proof, false).context(text)?;
    Ok(Played::Works)
}

/// Waits until the server has written down all of the allowed call, its end too.
fn settle(site: &Site, proof: Proof) -> Result<()> {
    let count = || match proof {
        Proof::Credential(_) => site.seen().map(|lines| lines.len()),
        Proof::Reached(file) => site.lines(Path::new(file)).map(|lines| lines.len()),
    };
    let until = Instant::now() + PATIENCE;
    let (mut last, mut since) = (count()?, Instant::now());
    while since.elapsed() < SETTLE && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
        let now = count()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

fn printed(ended: &Ended) -> String {
    format!("{}{}", ended.stdout, ended.stderr)
}

/// What the servers saw: all of it with the credential, or none of it.
fn proven(site: &Site, proof: Proof, allowed: bool) -> Result<()> {
    let seen = || -> Result<Vec<String>> {
        Ok(match proof {
            Proof::Credential(host) => {
                site.seen()?.into_iter().filter(|l| l.starts_with(host)).collect()
            }
            Proof::Reached(file) => site.lines(Path::new(file))?,
        })
    };
    // Servers write a call down when it is over.
    let until = Instant::now() + if allowed { PATIENCE } else { SETTLE };
    while Instant::now() < until && (!allowed || seen()?.is_empty()) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let seen = seen()?;
    if !allowed {
        ensure!(seen.is_empty(), "the refused call reached the server: {seen:?}");
        return Ok(());
    }
    ensure!(!seen.is_empty(), "the allowed call did not reach the server");
    let all = matches!(proof, Proof::Reached(_)) || seen.iter().all(|l| l.ends_with(" 1"));
    ensure!(all, "the server saw calls without the credential: {seen:?}");
    Ok(())
}
