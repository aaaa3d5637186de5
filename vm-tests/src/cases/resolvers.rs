//! The resolvers that programs bring with them, unmodified inside `egret run`: each must come to
//! the same addresses as the C library, and fail for the same names.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

use super::Case;
use crate::fixtures::agent::{expect_record, outside};
use crate::fixtures::{Bench, Ended, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case { name: "glibc_over_udp_tcp_and_edns", needs: &[Need::Python], run: glibc },
    Case { name: "search_domains_of_a_cluster", needs: &[Need::Python], run: cluster },
    Case {
        name: "no_search_domain_comes_from_the_hosts_name",
        needs: &[Need::Python],
        run: search,
    },
    Case { name: "musl", needs: &[Need::Python, Need::Musl], run: musl },
    Case { name: "c_ares_in_node", needs: &[Need::Python, Need::Node], run: c_ares },
    Case { name: "go_without_the_c_library", needs: &[Need::Python, Need::Go], run: go },
    Case { name: "dnspython", needs: &[Need::Python, Need::Dnspython], run: dnspython },
    Case { name: "dig_sees_exact_messages", needs: &[Need::Dig], run: dig },
];

/// What every resolver is asked for: `(name, whether it exists)`. The last two have the longest
/// label and the longest name that there are.
fn names() -> Vec<(String, bool)> {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}.test", "b".repeat(56));
    let known = ["api.test", "API.Test", "db", "xn--bcher-kva.test", "api.test."];
    let unknown = ["missing.test", "api.test.corp.example", "apitest"];
    let with = |exists: bool| move |name: &str| (name.to_owned(), exists);
    let mut names: Vec<_> = known.into_iter().map(with(true)).collect();
    names.extend(unknown.into_iter().map(with(false)));
    names.extend([(format!("{label}.test"), true), (longest, true)]);
    names
}

/// A policy that knows them; one name is written as people write it.
fn policy(world: &World) -> Result<std::path::PathBuf> {
    let label = "a".repeat(63);
    let text = format!(
        "version = 1\nname = \"{}\"\n[dns]\nunmatched = \"nxdomain\"\n[[rule]]\nname = \"all\"\n\
         action = \"allow\"\nhosts = [\"api.test\", \"db\", \"b\u{fc}cher.test\", \"{label}.test\", \
         \"**.{label}.{}.test\"]\n",
        world.name,
        "b".repeat(56)
    );
    world.write("policy.toml", &text)
}

/// Prints `NAME ADDRESS` for each address of each name, as the C library finds them with
/// AI_ADDRCONFIG.
const GETADDRINFO: &str = "import socket, sys
for name in sys.argv[1:]:
    try:
        found = socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        for f in found: print(name, f[4][0])
    except socket.gaierror as e:
        print(name, 'none' if e.errno in (socket.EAI_NONAME, socket.EAI_NODATA) else e)
";

/// Runs `command NAME…` beside the C library in one session, and compares what they print.
fn agrees(world: &World, env: &[(&str, &str)], command: &str) -> Result<()> {
    let names = names();
    let list: Vec<&str> = names.iter().map(|(name, _)| &**name).collect();
    world.write("reference.py", GETADDRINFO)?;
    let reference = world.path("reference.py");
    let list = list.join(" ");
    let script =
        format!("/usr/bin/python3 {} {list} && echo --- && {command} {list}", reference.display());
    let mut egret = crate::fixtures::Egret::new(world, &policy(world)?);
    for (name, value) in env {
        egret = egret.env(name, value);
    }
    let ended = egret.sh(&script)?.expect(0)?;
    let (expected, found) = ended.stdout.split_once("---").context("no second resolver")?;
    let (expected, found) = (parsed(expected)?, parsed(found)?);
    for (name, exists) in &names {
        let (expected, found) = (expected.get(name), found.get(name));
        let (Some(expected), Some(found)) = (expected, found) else {
            bail!("nothing was printed for {name}\n{}", ended.text());
        };
        ensure!(expected == found, "{name}: {found:?}, and by the C library {expected:?}");
        if !exists {
            ensure!(found.iter().eq(["none"]), "{name} has addresses: {found:?}");
            continue;
        }
        // One address of each family, both egret's own.
        let (v6, v4): (Vec<&String>, Vec<_>) = found.iter().partition(|a| a.contains(':'));
        let own = v4.len() == 1 && v6.len() == 1 && v4[0].starts_with("198.18.");
        ensure!(own && v6[0].starts_with("fd65:6772:6574:"), "{name}: {found:?}");
    }
    let of = |name: &str| found.get(name);
    ensure!(of("api.test") == of("API.Test") && of("api.test") != of("db"), "{found:?}");
    Ok(())
}

fn parsed(text: &str) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found = BTreeMap::<_, BTreeSet<_>>::new();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let (name, address) = line.split_once(' ').with_context(|| format!("odd line {line}"))?;
        found.entry(name.to_owned()).or_default().insert(address.to_owned());
    }
    Ok(found)
}

fn glibc(bench: &Bench) -> Result<()> {
    for options in ["ndots:1", "use-vc", "edns0", "ndots:5", "single-request", "rotate trust-ad"] {
        let world = World::new(bench)?;
        let command = format!("/usr/bin/python3 {}", world.path("reference.py").display());
        agrees(&world, &[("RES_OPTIONS", options)], &command).context(options)?;
    }
    Ok(())
}

/// What stands in the containers of a cluster: each name is asked for below the search domains
/// first. Those do not exist here, so the name itself is found.
fn cluster(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let command = format!("/usr/bin/python3 {}", world.path("reference.py").display());
    let search =
        [("LOCALDOMAIN", "default.cluster.example cluster.example"), ("RES_OPTIONS", "ndots:5")];
    agrees(&world, &search, &command)?;
    let asked = ("destination.host", "api.test.default.cluster.example");
    expect_record(&world, &[("event", "dns"), ("reason", "name_not_allowed"), asked])?;
    Ok(())
}

/// On a host that is called `x.corp.example`, the C library would look for `db.corp.example`.
fn search(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    world.write("reference.py", GETADDRINFO)?;
    let rule =
        "[[rule]]\nname = \"all\"\naction = \"allow\"\nhosts = [\"db\", \"db.corp.example\"]\n";
    let policy = world.write("search.toml", &format!("version = 1\nname = \"s\"\n{rule}"))?;
    let reference = world.path("reference.py").display().to_string();
    let renamed = "echo x.corp.example > /proc/sys/kernel/hostname && exec \"$@\"";
    let egret = crate::fixtures::Egret::new(&world, &policy);
    let script = format!("hostname; /usr/bin/python3 {reference} db db. db.corp.example");
    let inner = egret.command(&["sh", "-c", &script]);
    let mut command = std::process::Command::new("unshare");
    command.args(["--uts", "sh", "-c", renamed, "sh"]).arg(inner.get_program());
    command.args(inner.get_args()).current_dir(world.folder());
    let ended = crate::fixtures::Running::start(command)?.wait()?.expect(0)?;
    let names = ended.stdout.split_once('\n').context("no name of the host")?;
    ensure!(names.0 == "x.corp.example", "the control: the host has a domain, not {}", names.0);
    let found = parsed(names.1)?;
    ensure!(found["db"] == found["db."], "{found:?}");
    ensure!(found["db"] != found["db.corp.example"], "{found:?}");
    Ok(())
}

const C_PROGRAM: &str = r#"
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
int main(int count, char **names) {
  struct addrinfo hints = {0}, *found;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  for (int i = 1; i < count; i++) {
    int error = getaddrinfo(names[i], "443", &hints, &found);
    if (error) printf("%s %s\n", names[i], error == EAI_NONAME ? "none" : gai_strerror(error));
    else for (; found; found = found->ai_next) {
      char text[64];
      getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
      printf("%s %s\n", names[i], text);
    }
  }
}
"#;

fn musl(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let (source, program) = (world.write("ask.c", C_PROGRAM)?, world.path("ask"));
    let (source, program) = (source.display().to_string(), program.display().to_string());
    outside("musl-gcc", &["-static", "-o", &program, &source])?.expect(0)?;
    agrees(&world, &[], &program)
}

/// `dns.resolve4` and `dns.resolve6` are c-ares, which asks by itself and reads resolv.conf.
const NODE: &str = r#"
const dns = require("dns").promises;
const ask = async (name, one) => { try { return await one(name); } catch (e) {
  if (["ENOTFOUND", "ENODATA"].includes(e.code)) return []; throw e; } };
(async () => {
  for (const name of process.argv.slice(2)) {
    const found = [...await ask(name, dns.resolve4), ...await ask(name, dns.resolve6)];
    for (const address of found.length ? found : ["none"]) console.log(name, address);
  }
})();
"#;

fn c_ares(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let program = world.write("ask.js", NODE)?;
    agrees(&world, &[], &format!("node {}", program.display()))
}

const GO: &str = r#"package main
import ("context"; "errors"; "fmt"; "net"; "os")
func main() {
	r := &net.Resolver{PreferGo: true}
	for _, name := range os.Args[1:] {
		found, err := r.LookupHost(context.Background(), name)
		var why *net.DNSError
		if errors.As(err, &why) && why.IsNotFound { found = []string{"none"} } else if err != nil {
			found = []string{err.Error()}
		}
		for _, address := range found { fmt.Println(name, address) }
	}
}
"#;

fn go(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let (source, program) = (world.write("ask.go", GO)?, world.path("ask-go"));
    let build = format!(
        "HOME={folder} GOCACHE={folder}/go GO111MODULE=off CGO_ENABLED=0 go build -o {} {}",
        program.display(),
        source.display(),
        folder = world.folder().display()
    );
    outside("sh", &["-c", &build])?.expect(0)?;
    agrees(&world, &[("GODEBUG", "netdns=go")], &program.display().to_string())
}

const DNSPYTHON: &str = "import sys, dns.resolver
for name in sys.argv[1:]:
    found = []
    for kind in ('A', 'AAAA'):
        try: found += [r.address for r in dns.resolver.resolve(name, kind, tcp=TCP)]
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer): pass
    for address in found or ['none']: print(name, address)
";

fn dnspython(bench: &Bench) -> Result<()> {
    for tcp in ["False", "True"] {
        let world = World::new(bench)?;
        let program = world.write("ask.py", &DNSPYTHON.replace("TCP", tcp))?;
        let command = format!("/usr/bin/python3 {}", program.display());
        agrees(&world, &[], &command).context(tcp)?;
    }
    Ok(())
}

/// What is asked of dig, and what stands and does not stand in its output.
const DIG: &[(&str, &[&str], &[&str])] = &[
    (
        "api.test",
        &["status: NOERROR", "qr rd ra;", "ANSWER: 1", "EDNS: version: 0", "IN\tA\t198.18."],
        &["CNAME", " ad", " aa"],
    ),
    ("ApI.tEsT AAAA", &["ANSWER: 1", "ApI.tEsT.\t", ";ApI.tEsT."], &["api.test"]),
    ("+tcp api.test", &["status: NOERROR", "ANSWER: 1", "(TCP)"], &[]),
    ("+noedns api.test", &["status: NOERROR", "ANSWER: 1"], &["EDNS:"]),
    ("+dnssec api.test", &["ANSWER: 1", "flags: do;"], &["RRSIG", " ad"]),
    (
        "+cookie +nsid +subnet=192.0.2.0/24 api.test",
        &["ANSWER: 1"],
        &["COOKIE", "NSID", "CLIENT-SUBNET"],
    ),
    ("+edns=1 +noednsneg api.test", &["status: BADVERS", "EDNS: version: 0"], &["ANSWER: 1"]),
    ("+bufsize=512 api.test", &["ANSWER: 1", "udp: 1232"], &[]),
    ("+norec api.test", &["ANSWER: 1"], &[]),
    ("api.test HTTPS", &["status: NOERROR", "ANSWER: 0", "AUTHORITY: 1", "SOA"], &["IN\tHTTPS\t"]),
    ("api.test SVCB", &["status: NOERROR", "ANSWER: 0", "SOA"], &["IN\tSVCB\t"]),
    ("missing.test", &["status: NXDOMAIN", "ANSWER: 0", "AUTHORITY: 1", "SOA"], &[]),
    ("api.test ANY", &["status: REFUSED", "ANSWER: 0"], &[]),
    ("api.test CNAME", &["status: REFUSED", "ANSWER: 0"], &[]),
    ("api.test TXT", &["status: REFUSED", "ANSWER: 0"], &[]),
    ("-c CH version.bind TXT", &["status: REFUSED"], &["VERSION"]),
    ("+opcode=STATUS api.test", &["status: NOTIMP"], &[]),
    ("-x 8.8.8.8", &["status: NXDOMAIN"], &[]),
];

fn dig(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let mut script = String::new();
    for (arguments, ..) in DIG {
        script.push_str(&format!("dig +tries=1 +time=5 {arguments}; echo ===\n"));
    }
    script.push_str("dig +noall +answer -x $(dig +short api.test)\n");
    let ended: Ended =
        crate::fixtures::Egret::new(&world, &policy(&world)?).sh(&script)?.expect(0)?;
    let answers: Vec<&str> = ended.stdout.split("===").collect();
    ensure!(answers.len() == DIG.len() + 1, "{}", ended.text());
    for ((arguments, stands, stands_not), answer) in DIG.iter().zip(&answers) {
        for wanted in *stands {
            ensure!(answer.contains(wanted), "dig {arguments}: no {wanted:?} in {answer}");
        }
        // dig repeats its arguments in a comment.
        let said =
            answer.lines().filter(|l| !l.starts_with("; <<>>")).collect::<Vec<_>>().join("\n");
        for unwanted in *stands_not {
            ensure!(!said.contains(unwanted), "dig {arguments}: {unwanted:?} in {said}");
        }
    }
    ensure!(answers[DIG.len()].contains("PTR\tapi.test."), "{}", answers[DIG.len()]);
    Ok(())
}
