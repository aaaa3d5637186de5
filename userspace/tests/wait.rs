//! `egret systemd wait` among real programs: it ends well where it is served and nowhere else. As
//! root; otherwise it says that it was skipped.
#![expect(clippy::unwrap_used, reason = "a failure of the set-up is a failure of the test")]

#[path = "kernel/world.rs"]
#[allow(dead_code, reason = "the world of the kernel tests has more than this one uses")]
mod world;

use egret::redirect::ebpf::KernelOptions;

use world::in_world;

/// Runs it, and prints its exit code and what it said.
fn script(before: &str) -> String {
    format!(
        "
import subprocess
done = subprocess.run([{before}'{}', 'systemd', 'wait', '--seconds', '0'], capture_output=True)
print(done.returncode, done.stderr.decode())
",
        env!("CARGO_BIN_EXE_egret")
    )
}

#[test]
fn only_a_process_that_is_served_stops_waiting() {
    in_world(KernelOptions::default(), |w| {
        assert_eq!(w.agent(&script("")), "0");
        let cases = [
            (w.outsider(&script("")), "nothing holds this unit"),
            (w.agent(&script("'unshare', '-n', ")), "no listener in this unit's network namespace"),
            (
                w.agent(&script("'setpriv', '--bounding-set', '-net_raw', ")),
                "cannot find out whether anything holds it",
            ),
        ];
        for (said, wanted) in cases {
            assert!(said.starts_with("255 ") && said.contains(wanted), "{said}");
        }
    });
}
