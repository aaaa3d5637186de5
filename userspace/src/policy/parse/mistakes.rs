//! Pure: a table of what people get wrong in policies, and what they are told.

use super::*;

const HEAD: &str = "version = 1\n";
const CREDENTIAL: &str =
    "[credentials.c]\nsecret = \"env:T\"\nhosts = [\"x.test\"]\nbearer = true\n";
const RULE: &str = "[[rule]]\nname = \"r\"\naction = \"allow\"\nhosts = [\"x.test\"]\n";

pub(super) fn errors(text: &str) -> Vec<String> {
    match parse("p.toml", text, &PresetsOnly) {
        Ok(p) => panic!("no error in {text}\n{p:#?}"),
        Err(e) => e.iter().map(ToString::to_string).collect(),
    }
}

/// Each case: what follows `version = 1`, and what one of the errors must contain.
#[test]
fn every_mistake_has_its_place_and_help() {
    let rule = |keys: &str| format!("{HEAD}{RULE}{keys}");
    let cred = |keys: &str| {
        let text =
            format!("{HEAD}[credentials.c]\nsecret = \"env:T\"\nhosts = [\"x.test\"]\n{keys}");
        format!("{text}\n{RULE}credentials = [\"c\"]\n")
    };
    let top = |keys: &str| format!("{HEAD}{keys}");
    for (text, want) in [
        // The file.
        (String::new(), "p.toml:1:1: the policy has no `version`\n  help: begin"),
        ("version = 2".into(), "p.toml:1:11: this egret reads policies of version 1"),
        ("version = \"1\"".into(), "must be a whole number, not a string"),
        (
            top("rulez = 1"),
            "p.toml:2:1: unknown key in the policy `rulez`\n  help: did you mean `rule`?",
        ),
        (
            top("mode = \"enforced\""),
            "p.toml:2:8: unknown mode `enforced`\n  help: did you mean `enforce`?",
        ),
        (top("name = \"\""), "`name` is empty"),
        (top("name = \"a\\u001b\""), "control character"),
        (top("name = 1\nname = 2"), "p.toml:3:1: not valid TOML: duplicate key"),
        (top("name = "), "not valid TOML"),
        (
            top("use = [\"npm-readnly\"]"),
            "p.toml:2:8: there is no preset `npm-readnly`: did you mean `npm-readonly`?",
        ),
        (top("use = []"), "`use` is an empty list"),
        (top("rule = 1"), "write [[rule]] with two brackets"),
        (top("[rule]\nname = \"x\""), "write [[rule]] with two brackets"),
        (top("credentials = 1"), "must be a table, not an integer"),
        // Rules.
        (top("[[rule]]\n"), "a rule has no `action`"),
        (top("[[rule]]\naction = \"allow\"\nhosts = [\"a\"]"), "p.toml:2:1: a rule has no `name`"),
        (top("[[rule]]\nname = \"a\"\naction = \"allow\""), "a rule has no `hosts`"),
        (
            top("[[rule]]\nname = \"a\"\naction = \"alow\"\nhosts = [\"a\"]"),
            "unknown action `alow`\n  help: did you mean `allow`?",
        ),
        (
            top("[[rule]]\nname = \"a\"\naction = \"allow\"\nhosts = []"),
            "p.toml:5:9: `hosts` is an empty list",
        ),
        (
            top("[[rule]]\nname = \"a\"\naction = \"allow\"\nhosts = \"a.test\""),
            "help: write hosts = [\"a.test\"]",
        ),
        (
            top("[[rule]]\nname = \"a\"\naction = \"allow\"\nhosts = [\"a.test:443\"]"),
            "a host has no port",
        ),
        (
            top("[[rule]]\nname = \"a\"\naction = \"allow\"\nhosts = [\"*\"]"),
            "is not a host pattern",
        ),
        (
            top("[[rule]]\nname = \"a\"\naction = \"allow\"\nhosts = [\"127.1\"]"),
            "looks like an address",
        ),
        (
            top("[[rule]]\nname = \"a\"\naction = \"allow\"\nhosts = [\"10.0.0.1/8\"]"),
            "write 10.0.0.0/8",
        ),
        (
            top("[[rule]]\nname = \"a\"\naction = \"allow\"\nhosts = [\"a\", \"A.\"]"),
            "`a` stands here twice",
        ),
        (
            rule("method = [\"GET\"]"),
            "p.toml:6:1: unknown key in a rule `method`\n  help: did you mean `methods`?",
        ),
        (rule("methods = []"), "`methods` is an empty list"),
        (rule("methods = [\"get\"]"), "methods are upper case: `GET`"),
        (rule("methods = [\"CONNECT\"]"), "never forwarded"),
        (rule("methods = [\"GET\", \"TRACE\"]"), "p.toml:6:19: `TRACE` is never forwarded"),
        (rule("paths = []"), "`paths` is an empty list"),
        (rule("paths = [\"a\"]"), "a path begins with `/`"),
        (rule("paths = [\"/a/../b\"]"), "dot segment"),
        (rule("paths = [\"/a**\"]"), "must be a whole segment"),
        (rule("paths = [\"/a?b=c\"]"), "queries are not matched"),
        (rule("ports = []"), "`ports` is an empty list"),
        (rule("ports = 443"), "help: write ports = [443]"),
        (rule("ports = [0]"), "must be from 1 to 65535"),
        (rule("ports = [65536]"), "must be from 1 to 65535"),
        (rule("ports = [443, 443]"), "stands here twice"),
        (rule("ports = [80]"), "port 80 without `protocol`"),
        (rule("protocol = \"htps\""), "did you mean `https`?"),
        (rule("protocol = \"udp\""), "unknown protocol `udp`"),
        (rule("protocol = \"tcp\""), "a tcp rule has no `ports`"),
        (
            rule("protocol = \"tcp\"\nports = [1]\nmethods = [\"GET\"]"),
            "`methods` needs https or http",
        ),
        (rule("protocol = \"tls\"\npaths = [\"/\"]"), "`paths` needs https or http"),
        (
            rule("protocol = \"tls\"\nlimits = { requests_per_minute = 1 }"),
            "`requests_per_minute` needs",
        ),
        (rule("limits = { upload = \"10 MB\" }"), "is not a size"),
        (rule("limits = { uplod = 1 }"), "did you mean `upload`?"),
        (rule("limits = { requests_per_minute = 0 }"), "must be from 1"),
        (rule("credentials = [\"nope\"]"), "there is no credential `nope`"),
        (rule("credentials = []"), "`credentials` is an empty list"),
        (
            format!("{HEAD}{RULE}{RULE}"),
            "p.toml:7:8: there is already a rule `r`\n  help: the first is at p.toml:3",
        ),
        (
            format!(
                "{HEAD}{CREDENTIAL}[[rule]]\nname = \"d\"\naction = \"deny\"\nhosts = [\"x.test\"]\ncredentials = [\"c\"]"
            ),
            "a deny rule has no `credentials`",
        ),
        (
            format!("{HEAD}{CREDENTIAL}{RULE}protocol = \"http\"\ncredentials = [\"c\"]"),
            "only ever attached on https",
        ),
        (format!("{HEAD}{CREDENTIAL}{RULE}credentials = [\"C\"]"), "did you mean `c`?"),
        (
            format!("{HEAD}{CREDENTIAL}{}credentials = [\"c\"]", RULE.replace("x.test", "*.test")),
            "`*.test` is outside the binding of credential `c`",
        ),
        // Credentials.
        (cred(""), "does not say how it is attached"),
        (cred("bearer = false"), "`bearer` must be `true`"),
        (cred("bearer = true\nquery = { name = \"k\" }"), "more than one kind: bearer, query"),
        (cred("bearr = true"), "did you mean `bearer`?"),
        (cred("basic = { username = \"a:b\" }"), "no `:`"),
        (cred("basic = {}"), "`basic` has no `username`"),
        (cred("header = { name = \"x y\", value = \"{secret}\" }"), "not a header name"),
        (
            cred("header = { name = \"Host\", value = \"{secret}\" }"),
            "`host` cannot carry a credential",
        ),
        (cred("header = { name = \"x\", value = \"hunter2\" }"), "must contain `{secret}`"),
        (cred("placeholder = []"), "`placeholder` is an empty list"),
        (cred("placeholder = [\"headers\"]"), "did you mean `header`?"),
        (
            cred("aws_sigv4 = { region = \"a\", service = \"b\" }"),
            "`aws_sigv4` in a credential is not yet supported",
        ),
        (cred("oauth2 = {}"), "`oauth2` in a credential is not yet supported"),
        (cred("github_app = {}"), "`github_app` in a credential is not yet supported"),
        (cred("bearer = true\non_canary = \"freeze\""), "is not yet supported"),
        (cred("bearer = true\non_canary = \"frezze\""), "did you mean `freeze`?"),
        (cred("bearer = true\nenv = \"1A\""), "letters, digits and `_`"),
        (cred("bearer = true\nenv = \"PATH\""), "`PATH` cannot hold a placeholder"),
        (cred("bearer = true\nshape = \"ghp_{4}\""), "needs at least 16"),
        (cred("bearer = true\nshape = \"ghp_{36\""), "stands alone"),
        (cred("bearer = true\nshape = \"ghp_{x}\""), "is not a number"),
        (cred("bearer = true\nshape = \"{600}\""), "is not a number"),
        (
            top("[credentials.c]\nhosts = [\"x.test\"]\nbearer = true"),
            "credential `c` has no `secret`",
        ),
        (
            top("[credentials.c]\nsecret = \"env:A\"\nbearer = true"),
            "credential `c` has no `hosts`",
        ),
        (
            top("[credentials.c]\nsecret = \"env:A\"\nbearer = true\nhosts = []"),
            "`hosts` is an empty list",
        ),
        (
            top("[credentials.c]\nsecret = \"env:A\"\nbearer = true\nhosts = [\"10.0.0.1\"]"),
            "not to addresses",
        ),
        (
            top("[credentials.c]\nsecret = \"vault:a#b\"\nbearer = true\nhosts = [\"a\"]"),
            "a `vault:` secret is not yet supported",
        ),
        (
            top("[credentials.c]\nsecret = \"store:a\"\nbearer = true\nhosts = [\"a\"]"),
            "not yet supported",
        ),
        (
            top("[credentials.c]\nsecret = \"fd:3\"\nbearer = true\nhosts = [\"a\"]"),
            "not yet supported",
        ),
        (
            top("[credentials.c]\nsecret = \"systemd:a\"\nbearer = true\nhosts = [\"a\"]"),
            "not yet supported",
        ),
        (
            format!(
                "{HEAD}{CREDENTIAL}env = \"A\"\n{}env = \"A\"",
                CREDENTIAL.replace(".c]", ".d]")
            ),
            "another credential already uses `A`",
        ),
        // Settings.
        (top("[session]\nttl = \"2h\""), "p.toml:3:1: `ttl` in `session` is not yet supported"),
        (top("[session]\nrequests = 1\nupload = \"1GiB\""), "`upload` in `session` is not yet"),
        (top("[dns]\nforward = [\"SRV\"]"), "not yet supported"),
        (top("[dns]\nunmatched = \"nxdomian\""), "did you mean `nxdomain`?"),
        (top("[local]\nconnect = [0]"), "from 1 to 65535"),
        (top("[local]\nconnect = [53]"), "answered by egret"),
        (top("[local]\nlisten = [70000]"), "from 1 to 65535"),
        (top("[local]\nlisten = []"), "empty list"),
        (top("[local]\nlisten = \"3000\""), "must be a list"),
        (top("[local]\nunix = [\"run/x\"]"), "path is absolute"),
        (top("[local]\nunix = [\"/run/../x\"]"), "no empty, `.` or `..`"),
        (top("[local]\nunix = [\"/run/egret/control.sock\"]"), "must keep closed"),
        (top("[local]\nunix = [\"/**\"]"), "every socket"),
        (top("[local]\nunix = [\"/run/**\"]"), "must keep closed"),
        (top("[local]\nunix = [\"/a/*/b\"]"), "only a trailing"),
        (top("[upstream]\nresolve = { \"a.test\" = \"b.test\" }"), "is not ADDRESS"),
        (
            top("[upstream]\nresolve = { \"a.test\" = \"1.2.3.4\", \"A.test.\" = \"1.2.3.4\" }"),
            "twice",
        ),
        (top("[upstream]\nresolve = { \"1.2.3.4\" = \"1.2.3.4\" }"), "looks like an address"),
        (top("[upstream]\nprivate = [\"10.0.0.1/8\"]"), "write \"10.0.0.0/8\""),
        (top("[upstream]\nca = []"), "`ca` is an empty list"),
        (top("[upstream]\ncas = [\"a\"]"), "did you mean `ca`?"),
        (top("[upstream]\nconect_timeout = \"5s\""), "did you mean `connect_timeout`?"),
        (
            top("[upstream]\nconnect_timeout = \"5ms\""),
            "p.toml:3:19: `connect_timeout` must be from 1s to 1h",
        ),
        (top("[upstream]\ntls_timeout = \"61m\""), "`tls_timeout` must be from 1s to 1h"),
        (top("[upstream]\nanswer_timeout = \"8d\""), "must be from 1s to 168h"),
        (top("[upstream]\nidle_timeout = \"8d\""), "must be from 1s to 168h"),
        (top("[upstream]\nidle_timeout = \"soon\""), "p.toml:3:16: `soon` is not a duration"),
        (top("[upstream]\nidle_timeout = 30"), "`idle_timeout` must be a string"),
        (top("[upstream]\nresolve = { \"a.test\" = \"1.2.3.4:0\" }"), "is not ADDRESS"),
        (top("[upstream]\nresolve = { \"a.test\" = \"\" }"), "is empty"),
        (top("[upstream]\nresolve = { \"a.test\" = \"fe80::1%eth0\" }"), "is not ADDRESS"),
        (top("[upstream]\nresolve = { \"*.a.test\" = \"1.2.3.4\" }"), "p.toml:3:13: "),
        (top("[http]\nhead_timeout = \"0s\""), "write for example 30s"),
        (top("[http]\nhead_timeout = \"2h\""), "`head_timeout` must be from 1s to 1h"),
        (top("[http]\nhead_timeout = 30"), "`head_timeout` must be a string"),
        (top("[http]\nhead = \"1KiB\""), "`head` must be from 4096 to 1048576 bytes"),
        (top("[http]\nhead = 0"), "`head` must be from 4096"),
        (top("[http]\nheaders = 5"), "`headers` must be from 16 to 1000"),
        (top("[http]\nstreams = 0"), "`streams` must be from 1 to 1024"),
        (top("[http]\nbody_rate = 0"), "`body_rate` must be from 1"),
        (top("[http]\nbody_rate = \"fast\""), "is not a size"),
        (top("[http]\nheader = 100"), "did you mean `head"),
    ] {
        let found = errors(&text);
        assert!(found.iter().any(|e| e.contains(want)), "want {want}\nin {text}\ngot {found:#?}");
    }
}
