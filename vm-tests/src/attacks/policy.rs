//! What the agents of the attacks may: the usual rules, names that lead to bad certificates and to
//! addresses that must not be dialled, and, for an attached agent, one port of loopback.

use std::path::PathBuf;

use anyhow::Result;

use super::kinds::Mode;
use crate::fixtures::World;
use crate::fixtures::upstream::Upstream;

/// The policy of a mode's agent, written to a file.
pub(super) fn main(
    world: &World,
    mode: Mode,
    others: &[(&str, Upstream)],
    local: u16,
) -> Result<PathBuf> {
    let bad = "\"expired.test\", \"wrong.test\", \"unknown.test\", \"own.test\"";
    let loopback = match mode {
        Mode::Run => String::new(),
        Mode::Attach => format!("[local]\nconnect = [{local}]\n\n"),
    };
    let text = format!(
        "version = 1\nname = \"{}\"\n\n{}\n\
         [credentials.bad]\nsecret = \"env:E2E_TOKEN\"\nbearer = true\nhosts = [{bad}]\n\n\
         {}{}{}{}{}{}{loopback}{}",
        world.name,
        world.rules(),
        rule("lures", "\"*.lure.test\"", "protocol = \"http\""),
        rule("wild", "\"**.wild.test\"", "protocol = \"https\""),
        rule("pass", "\"pass.test\"", "protocol = \"tls\""),
        rule("odd", "\"odd.test\", \"early.test\"", "protocol = \"https\""),
        rule("bad certificates", bad, "protocol = \"https\"\ncredentials = [\"bad\"]"),
        "[[rule]]\nname = \"denied zone\"\naction = \"deny\"\nhosts = [\"**.denied.test\"]\n\n",
        upstream(world, others),
    );
    world.write(&format!("attacks-{}.toml", mode.name()), &text)
}

/// Another agent's policy: it may what the first may not.
pub(super) fn another(world: &World, name: &str, more: &[(&str, Upstream)]) -> Result<PathBuf> {
    let hosts: Vec<String> = more.iter().map(|(host, _)| format!("\"{host}\"")).collect();
    let hosts =
        [&["\"forbidden.test\"".to_owned(), "\"api.test\"".to_owned()], &hosts[..]].concat();
    let text = format!(
        "version = 1\nname = \"{name}\"\n\n{}{}",
        rule("another's", &hosts.join(", "), "protocol = \"https\""),
        upstream(world, more),
    );
    world.write(&format!("{name}.toml"), &text)
}

fn rule(name: &str, hosts: &str, more: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\naction = \"allow\"\nhosts = [{hosts}]\n{more}\n\n")
}

/// Where the names are.
fn upstream(world: &World, others: &[(&str, Upstream)]) -> String {
    let usual = world.resolve();
    let usual = usual.trim().trim_end_matches('}');
    let more: Vec<String> =
        others.iter().map(|(name, u)| format!(", \"{name}\" = \"{}\"", u.address)).collect();
    format!(
        "[upstream]\nca = [\"{}\", \"{}\"]\n{usual}{}, \"pass.test\" = \"{}\" }}\n",
        world.path("ca.pem").display(),
        world.path("more-ca.pem").display(),
        more.concat(),
        world.https.address,
    )
}
