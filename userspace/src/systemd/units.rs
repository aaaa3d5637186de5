//! Pure: the unit files of `userspace/systemd/`, filled in. What each line is for stands in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::pattern::{Governed, Kind};
use crate::contain::{TRUST_DIR, trust};

/// The first line of every file, by which egret knows its own.
pub const MARK: &str =
    "Written by `egret systemd install`, which replaces it; make changes in a drop-in of your own.";

/// The slice whose units are agents, which needs no drop-in.
pub const SLICE: &str = "agents.slice";

/// What is enabled: wanted at boot.
pub const ENABLED: &[&str] = &["egret.service", SLICE];

/// Where the programs are pinned that refuse whatever is no agent yet, and what systemd calls the
/// hook of each (systemd.resource-control(5)).
const CLOSED_PINS: &str = "/run/egret/bpf/closed";
const CLOSED_HOOKS: &[&str] =
    &["egress", "sock_create", "connect4", "connect6", "sendmsg4", "sendmsg6"];

/// The name of a drop-in. A unit's own drop-ins with a higher number come after it.
pub const DROP_IN: &str = "50-egret.conf";

/// What depends on the machine and on what the operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where egret's program is installed.
    pub program: PathBuf,
    /// Bundles of certificates that are there, without symlinks.
    pub bundles: BTreeSet<PathBuf>,
    /// Java's stores that are there, without symlinks.
    pub java_stores: BTreeSet<PathBuf>,
    /// Leave the system bus reachable.
    pub bus: bool,
}

/// A file and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitFile {
    pub path: PathBuf,
    pub text: String,
}

/// The units of egret itself, and the user that it needs.
pub fn base(settings: &Settings) -> Vec<UnitFile> {
    let program = settings.program.display().to_string();
    [
        ("system/egret.service", include_str!("../../systemd/egret.service")),
        ("system/run-egret-bpf.mount", include_str!("../../systemd/run-egret-bpf.mount")),
        ("system/agents.slice", include_str!("../../systemd/agents.slice")),
        ("", include_str!("../../systemd/sysusers.conf")),
    ]
    .into_iter()
    .map(|(name, text)| UnitFile {
        path: match name {
            "" => "/etc/sysusers.d/egret.conf".into(),
            name => Path::new("/etc/systemd").join(name),
        },
        text: fill(text, &[("@BIN@", &program)]),
    })
    .collect()
}

/// What holds the units of a pattern under egret. Nothing for the slice that is held anyway.
pub fn drop_in(governed: &Governed, settings: &Settings) -> Vec<UnitFile> {
    let pattern = &governed.pattern;
    if pattern.to_string() == SLICE {
        return Vec::new();
    }
    let text = match pattern.kind {
        Kind::Service => fill(
            include_str!("../../systemd/service.conf"),
            &[
                ("@BIN@", &settings.program.display().to_string()),
                ("@NAME@", &governed.agent),
                ("@TRUST@", &trust_mounts(settings)),
                ("@ENVIRONMENT@", &environment()),
                ("@DBUS@", if settings.bus { WITH_BUS } else { WITHOUT_BUS }),
            ],
        ),
        Kind::Scope | Kind::Slice => {
            fill(include_str!("../../systemd/scope.conf"), &[("@SECTION@", pattern.kind.section())])
        }
    };
    let path = Path::new("/etc/systemd/system").join(pattern.folder()).join(DROP_IN);
    vec![UnitFile { path, text }]
}

const WITHOUT_BUS: &str = "\
# The system bus: its services start units and look names up for whoever asks. `--bus` keeps it, for
# a unit that cannot do without.
InaccessiblePaths=-/run/dbus/system_bus_socket
";

const WITH_BUS: &str = "\
# The system bus stays reachable, as was asked for (`--bus`): what its services do for this unit,
# such as starting units and looking names up, is not held.
";

/// The placeholders of a file that are in it.
fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut out = text.replace("@MARK@", MARK).replace("@CLOSED@", &closed_programs());
    for (placeholder, value) in values {
        out = out.replace(placeholder, value);
    }
    let mut out = out.trim_end().to_owned();
    out.push('\n');
    out
}

fn closed_programs() -> String {
    let line = |hook: &&str| format!("BPFProgram={hook}:{CLOSED_PINS}/{hook}");
    CLOSED_HOOKS.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The bundle over each of the system's. The minus sign: without a daemon there is none, and the
/// unit has the machine's certificates.
fn trust_mounts(settings: &Settings) -> String {
    let mount = |name: &str, over: &PathBuf| {
        let source = Path::new(TRUST_DIR).join(name);
        let over = over.to_str().filter(|path| is_plain(path))?;
        Some(format!("BindReadOnlyPaths=-{}:{over}", source.display()))
    };
    let bundles = settings.bundles.iter().filter_map(|over| mount(trust::BUNDLE, over));
    let stores = settings.java_stores.iter().filter_map(|over| mount(trust::STORE, over));
    bundles.chain(stores).collect::<Vec<_>>().join("\n")
}

/// The variables for programs that bring certificates of their own.
fn environment() -> String {
    let line = |name: &str, value: &str| format!("Environment=\"{name}={}\"", escape(value));
    trust::variables(None)
        .iter()
        .map(|(name, value)| line(&name.to_string_lossy(), &value.to_string_lossy()))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Inside double quotes (systemd.syntax(7)); a percent sign begins a specifier (systemd.unit(5)).
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

/// Whether a path means itself in every setting of a unit: an absolute one without white space,
/// quotes, colons, backslashes and specifiers.
pub fn is_plain(path: &str) -> bool {
    path.starts_with('/') && path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            program: "/opt/egret/egret".into(),
            bundles: ["/etc/ssl/certs/ca-certificates.crt".into()].into(),
            java_stores: ["/opt/java/cacerts".into(), "/opt/my java/cacerts".into()].into(),
            bus: false,
        }
    }

    fn drop_in_of(text: &str, settings: &Settings) -> UnitFile {
        drop_in(&text.parse().unwrap(), settings).pop().unwrap()
    }

    #[test]
    fn no_placeholder_is_left_and_every_file_has_the_mark() {
        let mut all = base(&settings());
        for pattern in ["ci-*.service", "docker-*.scope", "team.slice"] {
            all.push(drop_in_of(pattern, &settings()));
        }
        assert_eq!(all.len(), 7);
        for file in &all {
            assert!(file.text.starts_with(&format!("# {MARK}\n")), "{file:?}");
            assert!(file.path.is_absolute() && file.text.ends_with('\n'));
            let upper = |w: &str| w.len() > 2 && w.bytes().all(|b| b.is_ascii_uppercase());
            let left = file.text.split('@').skip(1).find(|w| upper(w));
            assert_eq!(left, None, "{file:?}");
        }
    }

    #[test]
    fn a_unit_is_closed_before_it_is_held() {
        let file = drop_in_of("builder=ci-*.service", &settings());
        assert_eq!(file.path, Path::new("/etc/systemd/system/ci-.service.d/50-egret.conf"));
        for line in [
            "AssertPathExists=/run/egret/bpf/closed/egress",
            "BPFProgram=egress:/run/egret/bpf/closed/egress",
            "BPFProgram=sendmsg6:/run/egret/bpf/closed/sendmsg6",
            "ExecCondition=+/opt/egret/egret systemd wait",
            "EnvironmentFile=-/run/egret/env/builder",
            "BindReadOnlyPaths=-/run/egret/trust/bundle.pem:/etc/ssl/certs/ca-certificates.crt",
            "BindReadOnlyPaths=-/run/egret/trust/bundle.p12:/opt/java/cacerts",
            "Environment=\"NODE_EXTRA_CA_CERTS=/run/egret/trust/ca.pem\"",
            "InaccessiblePaths=-/run/dbus/system_bus_socket",
        ] {
            assert!(file.text.lines().any(|l| l == line), "{line}\n{}", file.text);
        }
        assert!(!file.text.contains("/opt/my"), "white space would end the path");
        let with_bus = drop_in_of("ci-*.service", &Settings { bus: true, ..settings() });
        assert!(!with_bus.text.contains("InaccessiblePaths=-/run/dbus"));
        assert!(drop_in(&"agents.slice".parse().unwrap(), &settings()).is_empty());
    }

    #[test]
    fn slices_and_scopes_have_programs_only() {
        for (pattern, section) in [("team.slice", "[Slice]"), ("docker-*.scope", "[Scope]")] {
            let text = drop_in_of(pattern, &settings()).text;
            assert!(text.contains(section) && text.contains("BPFProgram=connect4:"), "{text}");
            assert!(!text.contains("Exec") && !text.contains("Bind"), "{text}");
        }
    }

    /// What the daemon's unit must not have, since the commands of `egret run` would inherit it.
    #[test]
    fn the_daemons_view_of_the_machine_is_the_machines() {
        let base = base(&settings());
        let service = base.iter().find(|f| f.path.ends_with("egret.service")).unwrap();
        let options = || service.text.lines().filter(|l| !l.starts_with('#'));
        for banned in
            ["Protect", "Private", "ReadOnly", "ReadWrite", "Inaccessible", "Bind", "Memory"]
        {
            assert!(!options().any(|l| l.starts_with(banned)), "{banned}");
        }
        assert!(options().any(|l| l == "NoNewPrivileges=yes"));
    }
}
