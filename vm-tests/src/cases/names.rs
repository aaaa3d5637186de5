//! DNS inside the agent's world: answered by egret, never by anyone outside.

use anyhow::{Result, ensure};

use super::Case;
use crate::fixtures::agent::{expect_record, outside};
use crate::fixtures::link::Link;
use crate::fixtures::{Bench, World};
use crate::needs::Need;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "names_resolve_to_stable_synthetic_addresses",
        needs: &[Need::Python],
        run: synthetic,
    },
    Case { name: "no_query_ever_leaves", needs: &[Need::Python, Need::Veth], run: nothing_leaves },
    Case {
        name: "a_malformed_message_hurts_nobody",
        needs: &[Need::Python, Need::Curl],
        run: malformed,
    },
    Case {
        name: "a_literal_address_goes_by_the_name_in_the_request",
        needs: &[Need::Curl],
        run: literal,
    },
];

fn synthetic(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let probe = world.probe();
    let script = format!(
        "for n in api.test API.test other.test forbidden.test; do python3 {probe} resolve $n; done"
    );
    let ended = world.egret()?.sh(&script)?.expect(0)?;
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [api, upper, other, forbidden] = lines[..] else { anyhow::bail!("{}", ended.text()) };
    ensure!(api == upper && api != other && other != forbidden, "{lines:?}");
    for address in lines {
        let good = address.starts_with("198.18.")
            || address.starts_with("198.19.")
            || address.starts_with("fd65:6772:6574:");
        ensure!(good, "{address} is not synthetic");
    }
    Ok(())
}

/// A query for `leak.example.org`, type A.
const QUERY: &str = "123401000001000000000000046c65616b076578616d706c65036f72670000010001";

fn nothing_leaves(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let link = Link::up()?;
    let (probe, resolver) = (world.probe(), link.far4.to_string());
    let query = ["python3", &probe, "datagram", &resolver, "53", QUERY];
    outside(query[0], &query[1..])?;
    ensure!(link.resolver.reached() == 1, "the control did not reach the resolver");
    link.must_not_be_silent("a DNS query")?;
    for user in ["root", &bench.user] {
        // Asked at that very resolver, egret answers in its place.
        let ended = world.egret()?.user(user).run(&query)?.expect(0)?;
        ended.says("received 1234")?;
        world.egret()?.user(user).run(&["python3", &probe, "resolve", "leak.example.org"])?;
        for port in ["853", "5353", "5300"] {
            world
                .egret()?
                .user(user)
                .run(&["python3", &probe, "datagram", &resolver, port, QUERY])?;
        }
    }
    ensure!(link.resolver.reached() == 1, "a query left");
    link.must_be_silent()
}

fn malformed(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    let loops = "0001010000010000000000000cc00c00010001";
    for message in ["", "00", "ffffffffffffffffffffffffffffffff", loops] {
        let script = format!(
            "python3 {} datagram 9.9.9.9 53 '{message}'; curl -sS https://api.test/after",
            world.probe()
        );
        world.egret()?.sh(&script)?.expect(0)?;
    }
    ensure!(world.https.seen().len() == 4, "{:?}", world.https.seen());
    expect_record(&world, &[("event", "dns"), ("reason", "malformed_dns")])?;
    Ok(())
}

fn literal(bench: &Bench) -> Result<()> {
    let world = World::new(bench)?;
    // The agent dials an address of its own choice; the name in the request decides.
    for (name, code) in [("api.test", "200"), ("forbidden.test", "403")] {
        let url = format!("https://{name}/literal");
        let pinned = format!("{name}:443:203.0.113.9");
        let ended = world.egret()?.run(&[
            "curl",
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--resolve",
            &pinned,
            &url,
        ])?;
        ensure!(ended.stdout == code, "{name}: {}", ended.text());
    }
    ensure!(world.https.seen().len() == 1, "{:?}", world.https.seen());
    Ok(())
}
