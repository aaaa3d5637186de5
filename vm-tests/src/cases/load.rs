//! Many requests at once, and clients that take their time: what they get, and what others get
//! meanwhile.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;

use anyhow::{Result, ensure};

use super::Case;
use crate::fixtures::agent::{eventually, records};
use crate::fixtures::pki::Pki;
use crate::fixtures::{Bench, Running, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case { name: "h2load_gets_every_answer", needs: &[Need::H2load, Need::Nginx], run: h2load },
    Case { name: "slow_heads_starve_nobody", needs: SLOW, run: slow_heads },
    Case { name: "slow_bodies_starve_nobody", needs: SLOW, run: slow_bodies },
    Case { name: "slow_readers_starve_nobody", needs: SLOW, run: slow_readers },
];

const SLOW: &[Need] = &[Need::Slowhttptest, Need::Curl];

/// nginx with TLS and HTTP/2, as it comes from Debian but for its addresses; killed when dropped.
fn nginx(world: &World) -> Result<(u16, Running)> {
    let pki = Pki::new(&["nginx.test"])?;
    world.write("nginx-ca.pem", &pki.ca_pem)?;
    pki.write_leaf(&["nginx.test"], &world.path("nginx.pem"), &world.path("nginx.key"))?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let folder = world.folder().display();
    let config = format!(
        "daemon off; master_process off; user root; pid {folder}/nginx.pid; events {{ }}\n\
         http {{ access_log off; client_body_temp_path {folder}/n1; proxy_temp_path {folder}/n2;\n\
         fastcgi_temp_path {folder}/n3; uwsgi_temp_path {folder}/n4; scgi_temp_path {folder}/n5;\n\
         server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {folder}/nginx.pem;\n\
         ssl_certificate_key {folder}/nginx.key; location / {{ return 200 hello; }} }} }}\n"
    );
    let config = world.write("nginx.conf", &config)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(config).arg("-e").arg(world.path("nginx.err"));
    let running = Running::start(command)?;
    let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    eventually("nginx listens", listens)?;
    Ok((port, running))
}

fn h2load(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let (port, _nginx) = nginx(&world)?;
    let policy = format!(
        "version = 1\nname = \"{}\"\n[[rule]]\nname = \"a\"\naction = \"allow\"\n\
         hosts = [\"nginx.test\"]\n[upstream]\nca = [\"{}\"]\n\
         resolve = {{ \"nginx.test\" = \"127.0.0.1:{port}\" }}\n",
        world.name,
        world.path("nginx-ca.pem").display(),
    );
    let policy = world.write("load.toml", &policy)?;
    let load = crate::fixtures::Egret::new(&world, &policy)
        .sh("h2load -n 5000 -c 1 -m 100 https://nginx.test/")?
        .expect(0)?;
    load.says("5000 done, 5000 succeeded, 0 failed, 0 errored, 0 timeout")?;
    load.says("5000 2xx")?;
    Ok(())
}

fn slow_heads(bench: &Bench) -> Result<()> {
    slow(bench, "-H", "https://api.test/items", "head_timeout")
}

fn slow_bodies(bench: &Bench) -> Result<()> {
    slow(bench, "-B -t POST", "https://other.test/items", "body_timeout")
}

fn slow_readers(bench: &Bench) -> Result<()> {
    slow(bench, "-X -w 512 -y 1024 -n 60 -z 1", "https://api.test/slow", "read_timeout")
}

/// Fifty slow connections of one kind for a quarter of a minute; curl asks all the time.
fn slow(bench: &Bench, mode: &str, url: &str, limit: &str) -> Result<()> {
    let world = World::new(bench)?;
    let rules = format!("{}\n[http]\n{limit} = \"2s\"\n", world.rules());
    let script = format!(
        "slowhttptest {mode} -c 50 -r 50 -i 60 -l 15 -p 3 -u {url} >/dev/null 2>&1 & slow=$!
         served=0
         while kill -0 $slow 2>/dev/null; do
             curl -sS --max-time 20 -o /dev/null -w '%{{http_code}}\\n' https://api.test/items | grep -qx 200 &&
                 served=$((served + 1)) || echo MISSED
             sleep 0.2
         done
         echo served $served"
    );
    let ended = world.egret_with(&rules)?.sh(&script)?.expect(0)?;
    ended.hides("MISSED")?;
    let served = ended.stdout.trim().strip_prefix("served ").and_then(|n| n.parse::<u32>().ok());
    // How many fit in beside it depends on the machine; that none was missed does not.
    ensure!(served.is_some_and(|n| n >= 3), "{}", ended.text());
    let given_up = records(&world)?.iter().filter(|r| r["reason"] == "client_timeout").count();
    ensure!(given_up >= 25, "{given_up} slow connections were given up");
    Ok(())
}
