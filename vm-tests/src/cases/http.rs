//! Requests through the interceptor: versions, methods, bodies, upgrades, clients.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Case;
use crate::fixtures::agent::{expect_record, outside};
use crate::fixtures::{Bench, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case { name: "http1_and_http2_both_work", needs: &[Need::Curl], run: versions },
    Case {
        name: "a_method_without_a_rule_gets_403_with_a_reason",
        needs: &[Need::Curl],
        run: post,
    },
    Case {
        name: "a_host_without_a_rule_gets_403_and_nothing_leaves",
        needs: &[Need::Curl],
        run: forbidden,
    },
    Case { name: "deny_wins_over_allow", needs: &[Need::Curl], run: deny_wins },
    Case { name: "paths_are_matched", needs: &[Need::Curl], run: paths },
    Case { name: "plain_http_works_where_a_rule_allows_it", needs: &[Need::Curl], run: plain },
    Case { name: "bodies_stream_both_ways", needs: &[Need::Curl], run: bodies },
    Case { name: "fifty_requests_at_once", needs: &[Need::Curl], run: parallel },
    Case { name: "websocket_upgrades", needs: &[Need::Python], run: websocket },
    Case { name: "python_urllib_as_each_user", needs: &[Need::Python], run: urllib },
    Case { name: "bash_dev_tcp_as_each_user", needs: &[Need::Bash], run: dev_tcp },
    Case { name: "node_fetch", needs: &[Need::Node], run: node },
    Case { name: "git_clones_over_https", needs: &[Need::Git], run: git },
    Case { name: "openssl_s_client_trusts_the_bundle", needs: &[Need::Openssl], run: s_client },
    Case { name: "a_bad_upstream_certificate_is_refused", needs: &[Need::Curl], run: certificate },
    Case { name: "an_upstream_that_is_down_gets_502", needs: &[Need::Curl], run: down },
    Case {
        name: "a_malformed_head_closes_that_connection_only",
        needs: &[Need::Python, Need::Curl],
        run: malformed_head,
    },
    Case {
        name: "a_malformed_client_hello_closes_that_connection_only",
        needs: &[Need::Python, Need::Curl],
        run: malformed_hello,
    },
    Case {
        name: "host_unlike_the_connection_is_refused",
        needs: &[Need::Curl],
        run: host_mismatch,
    },
];

fn versions(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let ended = world
            .egret()?
            .run(&[
                "curl",
                "-sS",
                flag,
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{http_version}",
                "https://api.test/v",
            ])?
            .expect(0)?;
        ensure!(ended.stdout == format!("200 {version}"), "{flag}: {}", ended.text());
    }
    ensure!(world.https.seen().len() == 2, "{:?}", world.https.seen());
    Ok(())
}

fn post(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let ended = world
        .egret()?
        .run(&["curl", "-sS", "-i", "-X", "POST", "-d", "x=1", "https://api.test/thing?q=1"])?
        .expect(0)?;
    let (head, body) = ended.stdout.split_once("\r\n\r\n").unwrap_or((&ended.stdout, ""));
    ensure!(head.contains(" 403"), "{}", ended.text());
    ensure!(head.to_lowercase().contains("x-egret: denied; reason=no_rule"), "{}", ended.text());
    let answer: Value = serde_json::from_str(body)?;
    for (field, expected) in [
        ("error", "egress_denied"),
        ("reason", "no_rule"),
        ("host", "api.test"),
        ("method", "POST"),
        ("path", "/thing"),
    ] {
        ensure!(answer[field] == expected, "{field}: {answer}");
    }
    ensure!(answer["next_steps"].as_array().is_some_and(|s| !s.is_empty()), "{answer}");
    ensure!(world.https.seen().is_empty(), "the upstream saw {:?}", world.https.seen());
    expect_record(
        &world,
        &[("decision", "deny"), ("reason", "no_rule"), ("request.method", "POST")],
    )?;
    Ok(())
}

fn forbidden(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    // Control: outside egret, the same request reaches the upstream.
    let target = format!("forbidden.test:443:{}", world.https.address);
    let ca = world.path("ca.pem").display().to_string();
    outside(
        "curl",
        &["-sS", "--connect-to", &target, "--cacert", &ca, "https://forbidden.test/x"],
    )?
    .expect(0)?;
    ensure!(world.https.connections() == 1, "the control did not reach the upstream");
    for user in ["root", &bench.user] {
        let ended = world
            .egret()?
            .user(user)
            .run(&["curl", "-sS", "-w", "\n%{http_code}", "https://forbidden.test/x"])?
            .expect(0)?;
        ensure!(ended.stdout.ends_with("\n403"), "{}", ended.text());
        ended.says("no_rule")?;
    }
    ensure!(world.https.connections() == 1, "a refused host was dialled");
    expect_record(&world, &[("decision", "deny"), ("destination.host", "forbidden.test")])?;
    Ok(())
}

fn deny_wins(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let rules = world.rules()
        + "\n[[rule]]\nname = \"never\"\naction = \"deny\"\nhosts = [\"api.test\"]\n\
           protocol = \"https\"\npaths = [\"/private/**\"]\nreason = \"not for agents\"\n";
    let egret = world.egret_with(&rules)?;
    let code = |path: &str| -> Result<String> {
        let url = format!("https://api.test{path}");
        Ok(egret.run(&["curl", "-sS", "-w", "\n%{http_code}", &url])?.expect(0)?.stdout)
    };
    ensure!(code("/public")?.ends_with("\n200"), "the control is refused");
    let refused = code("/private/key")?;
    ensure!(refused.ends_with("\n403"), "{refused}");
    for word in ["denied_by_rule", "not for agents"] {
        ensure!(refused.contains(word), "{word}: {refused}");
    }
    ensure!(world.https.seen().len() == 1, "{:?}", world.https.seen());
    Ok(())
}

fn paths(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let rules = "[[rule]]\nname = \"one repository\"\naction = \"allow\"\nhosts = [\"api.test\"]\n\
                 protocol = \"https\"\nmethods = [\"GET\"]\npaths = [\"/repos/acme/**\", \"/user/*/keys\"]\n";
    let egret = world.egret_with(rules)?;
    for (path, code) in [
        ("/repos/acme/x/y", "200"),
        ("/user/me/keys", "200"),
        ("/repos/other/x", "403"),
        ("/user/me/too/keys", "403"),
        ("/", "403"),
        ("/repos/acmeevil", "403"),
    ] {
        let url = format!("https://api.test{path}");
        let ended = egret
            .run(&["curl", "-sS", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", &url])?
            .expect(0)?;
        ensure!(ended.stdout == code, "{path}: {} instead of {code}", ended.stdout);
    }
    ensure!(world.https.seen().len() == 2, "{:?}", world.https.seen());
    Ok(())
}

fn plain(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let script =
        "curl -sS http://plain.test/p; curl -sS -w '%{http_code}' -d x http://plain.test/p";
    let ended = world.egret()?.sh(script)?.expect(0)?;
    ensure!(ended.stdout.ends_with("403"), "{}", ended.text());
    let seen = world.http.only()?;
    ensure!(seen.method == "GET" && seen.header("host") == "plain.test", "{seen:?}");
    ensure!(seen.header("authorization").is_empty(), "a credential over plain http: {seen:?}");
    Ok(())
}

fn bodies(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let big = world.path("big");
    std::fs::write(&big, vec![b'u'; 5 << 20])?;
    let script = format!(
        "curl -sS -o /dev/null -w '%{{size_download}} ' https://api.test/bytes/7000000 && \
         curl -sS -o /dev/null -w '%{{http_code}}' -T {} https://other.test/upload",
        big.display()
    );
    let ended = world.egret()?.sh(&script)?.expect(0)?;
    ensure!(ended.stdout == "7000000 200", "{}", ended.text());
    let upload = world.https.seen().pop().map_or(0, |s| s.body.len());
    ensure!(upload == 5 << 20, "the upstream got {upload} bytes");
    Ok(())
}

fn parallel(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let ended = world
        .egret()?
        .run(&[
            "curl",
            "-sS",
            "--http1.1",
            "--parallel",
            "--parallel-immediate",
            "--parallel-max",
            "50",
            // One root instead of the whole bundle: curl reads it anew for each connection, on one
            // thread, and under emulation that is slower than a handshake may be.
            "--cacert",
            "/run/egret/trust/ca.pem",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}\\n",
            "https://api.test/n/[1-50]",
        ])?
        .expect(0)?;
    let good = ended.stdout.lines().filter(|l| *l == "200").count();
    ensure!(good == 50, "{good} of 50 succeeded\n{}", ended.text());
    let seen = world.https.seen().len();
    ensure!(seen == 50, "the upstream saw {seen}");
    let allowed = crate::fixtures::agent::records(&world)?
        .iter()
        .filter(|r| r["event"] == "request" && r["decision"] == "allow")
        .count();
    ensure!(allowed == 50, "{allowed} allow records for 50 requests");
    Ok(())
}

fn websocket(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let ended =
        world.egret()?.run(&["python3", &world.probe(), "websocket", "api.test"])?.expect(0)?;
    ensure!(ended.stdout.contains(" 101"), "{}", ended.text());
    ensure!(ended.stdout.matches("\nechoed").count() == 2, "{}", ended.text());
    ensure!(world.https.only()?.header("authorization").contains(&world.secret), "no credential");
    Ok(())
}

fn urllib(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    for user in ["root", &bench.user] {
        let get = |url: &str| {
            world.egret()?.user(user).run(&["python3", &world.probe(), "urllib_get", url])
        };
        ensure!(get("https://api.test/py")?.expect(0)?.stdout.starts_with("200 "), "as {user}");
        let refused = get("https://forbidden.test/py")?.expect(0)?;
        ensure!(refused.stdout.starts_with("403 "), "as {user}: {}", refused.text());
    }
    ensure!(world.https.seen().len() == 2, "{:?}", world.https.seen());
    Ok(())
}

fn dev_tcp(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    for user in ["root", &bench.user] {
        let ask = |host: &str| {
            let script = format!(
                "exec 3<>/dev/tcp/{host}/80; \
                 printf 'GET /d HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n' >&3; \
                 cat <&3"
            );
            world.egret()?.user(user).run(&["bash", "-c", &script])
        };
        ask("plain.test")?.says("HTTP/1.1 200")?;
        ask("forbidden.test")?.hides("HTTP/1.1 200")?;
    }
    ensure!(
        world.http.seen().len() == 2 && world.https.connections() == 0,
        "a refused host was reached"
    );
    Ok(())
}

fn node(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let script = "fetch(process.argv[1]).then(async r => console.log(r.status, await r.text()))";
    let ask = |url: &str| world.egret()?.run(&["node", "-e", script, url]);
    ask("https://api.test/node")?.expect(0)?.says("200 {")?;
    ask("https://forbidden.test/node")?.expect(0)?.says("403 {")?;
    Ok(())
}

fn git(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let (work, bare) = (world.path("work"), world.path("files/repo.git"));
    let script = format!(
        "set -e; export GIT_CONFIG_GLOBAL=/dev/null HOME=/nonexistent; git init -q {work}; cd {work}; \
         echo hello > file; git add file; git -c user.name=e2e -c user.email=e2e@example.org commit -qm first; \
         git clone -q --bare . {bare}; cd {bare}; git update-server-info",
        work = work.display(),
        bare = bare.display()
    );
    outside("sh", &["-c", &script])?.expect(0)?;
    let rules = "[[rule]]\nname = \"clone\"\naction = \"allow\"\nhosts = [\"git.test\"]\n\
                 protocol = \"https\"\nmethods = [\"GET\"]\n";
    let copy = world.shared("copy");
    let clone = copy.display().to_string();
    let ended = world.egret_with(rules)?.env("GIT_CONFIG_GLOBAL", "/dev/null").run(&[
        "git",
        "clone",
        "-q",
        "https://git.test/files/repo.git",
        &clone,
    ])?;
    let ended = ended.expect(0)?;
    ensure!(std::fs::read_to_string(copy.join("file"))? == "hello\n", "{}", ended.text());
    Ok(())
}

fn s_client(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let script = "openssl s_client -connect api.test:443 -servername api.test -verify_return_error \
                  -brief </dev/null";
    world.egret()?.sh(script)?.expect(0)?.says("Verification: OK")?;
    Ok(())
}

fn certificate(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let other = World::new(bench)?;
    // The policy trusts the CA of another world than the one that signed the upstream's leaf.
    std::fs::copy(other.path("ca.pem"), world.path("ca.pem"))?;
    let ended = world
        .egret()?
        .run(&["curl", "-sS", "-w", "\n%{http_code}", "https://api.test/"])?
        .expect(0)?;
    ensure!(ended.stdout.ends_with("\n502"), "{}", ended.text());
    ended.says("upstream_certificate")?;
    ensure!(world.https.seen().is_empty(), "a request was sent all the same");
    Ok(())
}

fn down(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let policy = std::fs::read_to_string(world.policy(&world.rules())?)?;
    let port = crate::fixtures::upstream::closed_port()?;
    let policy = policy.replace(&world.https.address.to_string(), &format!("127.0.0.1:{port}"));
    let path = world.write("down.toml", &policy)?;
    let ended = crate::fixtures::Egret::new(&world, &path)
        .run(&["curl", "-sS", "-w", "\n%{http_code}", "https://api.test/"])?
        .expect(0)?;
    ensure!(ended.stdout.ends_with("\n502"), "{}", ended.text());
    ended.says("upstream_connect")?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn malformed_head(bench: &Bench) -> Result<()> {
    let heads: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: plain.test\r\nHost: plain.test\r\n\r\n",
        b"GET / HTTP/1.1\nHost: plain.test\n\n",
        b"GET / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: plain.test\r\nX: a\r\n b\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: plain.test\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
    ];
    for head in heads {
        let world = World::new(bench)?;
        let script = format!(
            "python3 {} bytes_to plain.test 80 {}; curl -sS http://plain.test/after",
            world.probe(),
            hex(head)
        );
        let ended = world.egret()?.sh(&script)?.expect(0)?;
        ended.hides("HTTP/1.1 200")?;
        let seen = world.http.only()?;
        ensure!(seen.target == "/after", "{head:?} was forwarded: {seen:?}");
        expect_record(&world, &[("decision", "deny"), ("reason", "malformed_request")])?;
    }
    Ok(())
}

fn malformed_hello(bench: &Bench) -> Result<()> {
    let hellos: &[&[u8]] = &[
        b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\xff",
        b"\x16\x03\x01\xff\xff\x01\x00\x00\x01",
        b"\x16\x03\x01\x00\x00",
    ];
    for hello in hellos {
        let world = World::new(bench)?;
        let script = format!(
            "timeout 60 python3 {} bytes_to api.test 443 {}; curl -sS https://api.test/after",
            world.probe(),
            hex(hello)
        );
        world.egret()?.sh(&script)?.expect(0)?;
        ensure!(world.https.only()?.target == "/after", "{hello:?}");
        expect_record(&world, &[("decision", "deny"), ("layer", "tls")])?;
    }
    Ok(())
}

fn host_mismatch(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let ended = world
        .egret()?
        .run(&[
            "curl",
            "-sS",
            "-w",
            "\n%{http_code}",
            "-H",
            "Host: other.test",
            "https://api.test/",
        ])?
        .expect(0)?;
    ensure!(ended.stdout.ends_with("\n421"), "{}", ended.text());
    ended.says("authority_mismatch")?;
    ensure!(world.https.seen().is_empty(), "{:?}", world.https.seen());
    Ok(())
}
