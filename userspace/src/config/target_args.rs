//! The flags with which `attach` names what it attaches to.

use clap::Args;

use crate::identify::Target;

/// Exactly one of them.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// A group of cgroup v2, inside its mount or from its root.
    #[arg(long, help_heading = "What", value_name = "PATH", value_parser = Target::cgroup)]
    cgroup: Option<Target>,
    /// A slice of systemd: agents.slice.
    #[arg(long, help_heading = "What", value_name = "SLICE", value_parser = Target::slice)]
    slice: Option<Target>,
    /// A unit of systemd that runs: NAME.service, NAME.scope.
    #[arg(long, help_heading = "What", value_name = "UNIT", value_parser = Target::unit)]
    unit: Option<Target>,
    /// The group that this process is in, with everything else in it.
    #[arg(long, help_heading = "What", value_name = "PID", value_parser = Target::pid)]
    pid: Option<Target>,
    /// A container, by the first 12 digits of its id or more.
    #[arg(long, help_heading = "What", value_name = "ID", value_parser = Target::container)]
    container: Option<Target>,
}

impl TargetArgs {
    /// What was named; the command line makes sure that it is there.
    pub fn target(self) -> Option<Target> {
        self.cgroup.or(self.slice).or(self.unit).or(self.pid).or(self.container)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Attach {
        #[command(flatten)]
        target: TargetArgs,
    }

    #[test]
    fn exactly_one_is_taken() {
        let read = |line: &str| {
            Attach::try_parse_from(line.split(' '))
                .map(|a| a.target.target())
                .map_err(|e| e.to_string())
        };
        let slice = Target::Slice("agents.slice".into());
        assert_eq!(read("attach --slice agents.slice"), Ok(Some(slice)));
        assert_eq!(read("attach --pid 7"), Ok(Some(Target::Pid(7))));
        for (line, want) in [
            ("attach", "--cgroup"),
            ("attach --pid 7 --slice a.slice", "cannot be used with"),
            ("attach --pid 7 --pid 8", "cannot be used multiple times"),
            ("attach --slice agents", "write agents.slice"),
            ("attach --container web", "docker ps"),
        ] {
            let e = read(line).unwrap_err();
            assert!(e.contains(want), "{line}: {e}");
        }
    }
}
