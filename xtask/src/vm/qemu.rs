//! Booting a guest: QEMU from the machine or from Debian's packages, watched until it ends.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::apt::{self, Apt};
use super::guest_config::{BOOTED, EXITED};
use super::kernels::Kernel;
use crate::{host, sh};

/// A guest that has not reached its own program by then never will.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// And this is the end of any run.
const TOTAL_LIMIT: Duration = Duration::from_secs(40 * 60);
/// A trial of KVM; where it works, a kernel panics for want of a disk within a second.
const TRIAL_LIMIT: Duration = Duration::from_secs(15);

/// A QEMU that can be started.
pub(super) struct Qemu {
    /// Unpacked packages, or nothing when the machine has its own.
    root: Option<PathBuf>,
    folder: PathBuf,
}

/// What to boot.
pub(super) struct Boot<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Path,
    pub(super) run_disk: &'a Path,
    pub(super) owner_fix: bool,
    pub(super) logs: &'a Path,
}

/// How a boot ended.
pub(super) struct End {
    pub(super) boot: Duration,
    pub(super) total: Duration,
    pub(super) exit: i32,
    pub(super) results: PathBuf,
}

/// Ends QEMU when dropped, whatever happened.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Qemu {
    /// The machine's own QEMU, or Debian's unpacked below `folder`.
    pub(super) fn provision(folder: &Path, apt: &mut Apt) -> Result<Self> {
        let folder = folder.to_owned();
        if host::find("qemu-system-x86_64").is_some() {
            return Ok(Self { root: None, folder });
        }
        let root = folder.join("qemu");
        if !root.join("complete").exists() {
            eprintln!("vm: fetching QEMU");
            let _ = std::fs::remove_dir_all(&root);
            let archives = apt.closure("qemu-packages", &["qemu-system-x86"])?;
            apt::unpack(&archives, &root)?;
            std::fs::write(root.join("complete"), "")?;
        }
        Ok(Self { root: Some(root), folder })
    }

    fn command(&self) -> Command {
        let Some(root) = &self.root else { return Command::new("qemu-system-x86_64") };
        let mut command = apt::foreign(root, "usr/bin/qemu-system-x86_64", "qemu-system-x86_64");
        command.env("QEMU_MODULE_DIR", root.join("usr/lib/x86_64-linux-gnu/qemu"));
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.join(data));
        }
        command
    }

    /// KVM only after a guest has run under it; /dev/kvm may open while its guests hang.
    fn accelerator(&self, kernel: &Path) -> &'static [&'static str] {
        const KVM: &[&str] = &["-accel", "kvm", "-cpu", "host"];
        const TCG: &[&str] = &["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"];
        let answer = self.folder.join("accelerator");
        match std::fs::read_to_string(&answer).as_deref() {
            Ok("kvm") => return KVM,
            Ok("tcg") => return TCG,
            _ => {}
        }
        let works = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
            && self.trial(kernel).unwrap_or(false);
        let _ = std::fs::write(&answer, if works { "kvm" } else { "tcg" });
        if works { KVM } else { TCG }
    }

    fn trial(&self, kernel: &Path) -> Result<bool> {
        let console = self.folder.join("logs/kvm-trial.log");
        let _ = std::fs::remove_file(&console);
        let mut command = self.command();
        command.args(["-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "512"]);
        machine(&mut command, kernel, "console=ttyS0 panic=-1");
        command.arg("-serial").arg(format!("file:{}", console.display()));
        let mut guest = Guest(quiet(&mut command).spawn()?);
        let started = Instant::now();
        while started.elapsed() < TRIAL_LIMIT {
            if guest.0.try_wait()?.is_some() {
                return Ok(sh::tail(&console, 200).contains("Kernel panic"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(false)
    }

    fn guest(&self, boot: &Boot<'_>, parameters: &str) -> Command {
        let mut command = self.command();
        command.args(self.accelerator(&boot.kernel.vmlinuz)).args(["-smp", "2", "-m", "1024"]);
        let init = if boot.owner_fix { " init=/usr/lib/egret/chown-init" } else { "" };
        let line = format!("console=ttyS0 root=/dev/nvme0n1 rw panic=-1 {parameters}{init}");
        machine(&mut command, &boot.kernel.vmlinuz, &line);
        // The root is on the only NVMe disk, whose driver is built in; two of them would race for
        // their names. The other disk's driver is a module, loaded from the root.
        let drive = |id: &str, file: &Path, how: &str| {
            format!("file={},format=raw,if=none,id={id},{how}", file.display())
        };
        command.arg("-drive").arg(drive("root", boot.image, "snapshot=on"));
        command.arg("-drive").arg(drive("run", boot.run_disk, "readonly=on"));
        command.args(["-device", "nvme,serial=egret,drive=root"]);
        command.args(["-device", "virtio-blk-pci,drive=run"]);
        command
    }

    /// A guest with its console on this terminal.
    pub(super) fn interactive(&self, boot: &Boot<'_>) -> Command {
        let mut command = self.guest(boot, "quiet");
        command.args(["-serial", "mon:stdio", "-serial", "null"]);
        command
    }

    /// Boot, hand each line that the guest's program prints to `see`, and wait for the end.
    pub(super) fn boot(&self, boot: &Boot<'_>, see: &mut dyn FnMut(&str)) -> Result<End> {
        let file = |what: &str| boot.logs.join(format!("{}-{what}.log", boot.kernel.series));
        let (console, results) = (file("console"), file("results"));
        for log in [&console, &results] {
            std::fs::write(log, "")?;
        }
        let mut command = self.guest(boot, "egret.run systemd.getty_auto=no");
        for log in [&console, &results] {
            command.arg("-serial").arg(format!("file:{}", log.display()));
        }
        let qemu_log = file("qemu");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&qemu_log)?);
        let mut guest = Guest(command.spawn().context("cannot start QEMU")?);
        match watch(&mut guest, &results, see) {
            Ok(end) => Ok(end),
            Err(error) => bail!(
                "{error:#}\n{}── the end of {}\n{}",
                sh::tail(&qemu_log, 5),
                console.display(),
                sh::tail(&console, 25)
            ),
        }
    }
}

fn machine(command: &mut Command, kernel: &Path, line: &str) {
    command.args(["-nodefaults", "-no-reboot", "-display", "none"]);
    command.arg("-kernel").arg(kernel).args(["-append", line]);
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// Follow the results until QEMU ends or a limit passes.
fn watch(guest: &mut Guest, results: &Path, see: &mut dyn FnMut(&str)) -> Result<End> {
    let started = Instant::now();
    let mut lines = Lines::open(results)?;
    let (mut booted, mut exit) = (None, None);
    loop {
        let ended = guest.0.try_wait()?;
        for line in lines.read()? {
            if let Some(rest) = line.strip_prefix(BOOTED) {
                booted = Some(started.elapsed());
                let mut words = rest.split_whitespace();
                let (release, up) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                see(&format!("booted {release} in {:.0?} ({up} s inside)", started.elapsed()));
            } else if let Some(rest) = line.strip_prefix(EXITED) {
                exit = rest.trim().parse().ok();
            } else {
                see(&line);
            }
        }
        let total = started.elapsed();
        match (ended, booted, exit) {
            (Some(_), Some(boot), Some(exit)) => {
                return Ok(End { boot, total, exit, results: results.to_owned() });
            }
            (Some(status), ..) => bail!("the VM ended ({status}) before its program did"),
            (None, None, _) if total > BOOT_LIMIT => bail!("the VM did not boot in {total:.0?}"),
            (None, ..) if total > TOTAL_LIMIT => bail!("the VM did not finish in {total:.0?}"),
            (None, ..) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The complete lines of a file that grows.
struct Lines {
    file: std::fs::File,
    at: u64,
    rest: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { file: std::fs::File::open(path)?, at: 0, rest: Vec::new() })
    }

    fn read(&mut self) -> Result<Vec<String>> {
        self.file.seek(SeekFrom::Start(self.at))?;
        self.at += self.file.read_to_end(&mut self.rest)? as u64;
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_handed_out_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut lines = Lines::open(&path).unwrap();
        for (written, expected) in
            [("one\r\ntw", vec!["one"]), ("", vec![]), ("o\nthree\n", vec!["two", "three"])]
        {
            file.write_all(written.as_bytes()).unwrap();
            assert_eq!(lines.read().unwrap(), expected);
        }
    }
}
