//! Lines 41 and 79 for a daemon: its CA, whose key is on disk, and its control socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::attacks::judge::Outcome;
use crate::attacks::kinds::Who;
use crate::attacks::stage::Stage;
use crate::fixtures::agent::eventually;
use crate::fixtures::pki;
use crate::fixtures::upstream::Upstream;

/// A server with a certificate of the daemon's own CA, for a name that the agent may ask.
pub(in crate::attacks) fn own_authority(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let daemon = stage.the_daemon()?;
    let folder = daemon.state.join("ca");
    let work = stage.scene.world.path("");
    let config = pki::signed_by(&folder.join("ca.pem"), &key_in(&folder)?, "forged.test", &work)?;
    let (files, wanted) = (stage.scene.world.path("files"), "/forged");
    let network = stage.scene.machine.network_namespace();
    let start = move |config: Arc<rustls::ServerConfig>| {
        let files = files.clone();
        network.within(move || Upstream::start(Some(config), files))
    };
    // The control has the same name and a CA that the policy trusts.
    let good = stage.scene.good_server(&["trusted.test"])?;
    let upstreams = [("forged.test", start(config)?), ("trusted.test", start(good)?)];
    let another = stage.another("forged", &upstreams)?;
    for (host, _) in &upstreams {
        let _ = stage.ask(Some(&another), who, &["https", "-", host, "GET", wanted]);
    }
    stage.dismiss(another)?;
    let [(_, forged), (_, trusted)] = upstreams;
    ensure!(!trusted.seen().is_empty(), "a good certificate is not accepted either");
    Ok(match forged.seen().len() {
        0 => Outcome::Held,
        n => Outcome::Leaked(format!("{n} requests to a server with egret's own certificate")),
    })
}

/// The private key among the files of the CA, whatever it is called.
fn key_in(folder: &Path) -> Result<PathBuf> {
    let holds = |path: &PathBuf| {
        std::fs::read_to_string(path).is_ok_and(|text| text.contains("PRIVATE KEY-----"))
    };
    std::fs::read_dir(folder)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(holds)
        .with_context(|| format!("no key in PEM in {}", folder.display()))
}

/// An agent that asks to be let go.
pub(in crate::attacks) fn detach_from_inside(stage: &Stage<'_>, who: Who) -> Result<Outcome> {
    let daemon = stage.the_daemon()?;
    let folder = daemon.folder.display().to_string();
    let egret = stage.scene.world.bench.egret.display().to_string();
    let another = stage.another("let-go", &[])?;
    let name = another.name.clone();
    daemon.must_know(&name)?;
    let said = stage.ask(None, who, &["egret_control", &egret, &folder, "detach", &name])?;
    let still = daemon.must_know(&name);
    if said.kind == "done" || still.is_err() {
        return Ok(Outcome::Leaked(format!("an agent detached another: {}", said.detail)));
    }
    // The control: the same from outside, by the same command.
    stage.dismiss(another)?;
    eventually("it is let go from outside", || daemon.must_know(&name).is_err())?;
    Ok(Outcome::Held)
}
