//! Builds the kernel object from source on a machine that may have nothing but cargo.
//!
//! eBPF needs a compiler with `rust-src` (core is built for the target) and `bpf-linker` (which
//! needs the LLVM of that compiler). A rustup nightly that has both is used as it is. Otherwise
//! Debian's packages supply them: they are downloaded and unpacked below `target/`, never
//! installed, so no root is needed and nothing outside `target/` changes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// The version of bpf-linker that the programs were verified with.
const BPF_LINKER: &str = "0.13.0";
/// Changes whenever the provisioning below changes, so that an old cache is not trusted.
const RECIPE: &str = "1";
/// The package whose dependencies are the whole compiler.
const ROOT_PACKAGE: &str = "libstd-rust-web-dev";

/// How the kernel object is compiled.
enum Toolchain {
    /// `rustup run nightly cargo`, with bpf-linker from PATH.
    Nightly,
    /// Debian's rustc behind a wrapper script, with a bpf-linker built for its LLVM.
    Debian { rustc: PathBuf, linker: PathBuf },
}

/// Builds `target/ebpf/egret.bpf.o`, after provisioning the toolchain if needed, and returns its
/// path. Cheap when nothing changed.
pub(crate) fn build(workspace: &Path) -> Result<PathBuf> {
    let toolchain = if nightly_is_complete() {
        Toolchain::Nightly
    } else {
        provision(workspace).context(
            "cannot provision the eBPF toolchain. Either install it with `rustup toolchain install \
             nightly --component rust-src` and `cargo install bpf-linker`, or run this on Debian 12 \
             or newer with network access",
        )?
    };
    let built = compile(workspace, &toolchain)?;
    let object = workspace.join("target/ebpf/egret.bpf.o");
    fs::create_dir_all(workspace.join("target/ebpf"))?;
    // An unchanged object keeps its time stamp, so that userspace is not rebuilt for nothing.
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(&object).ok().as_deref() != Some(&bytes) {
        let partial = object.with_extension("partial");
        fs::write(&partial, &bytes)?;
        fs::rename(&partial, &object)?;
    }
    Ok(object)
}

/// Whether rustup has a nightly with rust-src and bpf-linker is on PATH.
fn nightly_is_complete() -> bool {
    let Some(sysroot) = quiet_output("rustup", &["run", "nightly", "rustc", "--print", "sysroot"])
    else {
        return false;
    };
    Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
        && quiet_output("bpf-linker", &["--version"]).is_some()
}

fn compile(workspace: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    progress("compiling the kernel programs");
    let target_dir = workspace.join("target/ebpf-build");
    let mut cargo = match toolchain {
        Toolchain::Nightly => {
            let mut c = Command::new("rustup");
            c.args(["run", "nightly", "cargo"]);
            c
        }
        Toolchain::Debian { rustc, linker } => {
            let mut c = Command::new(cargo());
            c.env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
            c
        }
    };
    // Flags and wrappers meant for the host's build have no place in this one.
    for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(name);
    }
    let arch = env::consts::ARCH;
    let flags = [
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
    ];
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--release", "--package", "agent-ebpf", "--bin", "agent-ebpf"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // The host's release profile strips and splits; the kernel wants BTF and one unit.
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    run(&mut cargo, "compiling the kernel programs")?;
    Ok(target_dir.join("bpfel-unknown-none/release/agent-ebpf"))
}

/// Unpacks Debian's compiler and LLVM, and builds bpf-linker against that LLVM.
fn provision(workspace: &Path) -> Result<Toolchain> {
    let base = workspace.join("target/ebpf-toolchain");
    let toolchain =
        Toolchain::Debian { rustc: base.join("rustc"), linker: base.join("bin/bpf-linker") };
    let stamp = base.join("stamp");
    let wanted = format!("recipe {RECIPE}, bpf-linker {BPF_LINKER}, at {}\n", base.display());
    if fs::read_to_string(&stamp).ok().as_deref() == Some(&wanted) {
        return Ok(toolchain);
    }
    if quiet_output("apt-get", &["--version"]).is_none() {
        bail!("there is no apt-get here, and no rustup nightly with rust-src and bpf-linker");
    }
    fs::create_dir_all(&base)?;
    progress(
        "provisioning the eBPF toolchain below target/ebpf-toolchain (once, about two minutes)",
    );
    let apt = Apt::prepare(&base)?;
    let llvm = unpack_packages(&apt, &base)?;
    write_wrapper(&base, &llvm)?;
    let version = quiet_output(base.join("rustc"), &["--version"])
        .context("the unpacked compiler does not run")?;
    progress(&format!("compiler: {}", version.trim()));
    install_linker(&base, &llvm)?;
    fs::write(&stamp, wanted)?;
    Ok(toolchain)
}

/// apt, with package lists of its own: the system's can be months old, and name packages that the
/// archive no longer has or a compiler whose LLVM bpf-linker no longer knows. Without a network the
/// system's have to do.
struct Apt {
    options: Vec<OsString>,
    downloads: PathBuf,
}

impl Apt {
    fn prepare(base: &Path) -> Result<Self> {
        let downloads = base.join("downloads");
        // What an attempt that failed has left is of unknown age.
        for leftover in [&downloads, &base.join("root")] {
            if leftover.exists() {
                fs::remove_dir_all(leftover)?;
            }
        }
        fs::create_dir_all(&downloads)?;
        let system = vec![OsString::from("-oAPT::Sandbox::User=root")];
        progress("fetching package lists");
        let (lists, cache) = (base.join("apt/lists"), base.join("apt/cache"));
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        let mut options = system.clone();
        options.push(format!("-oDir::State::lists={}", lists.display()).into());
        options.push(format!("-oDir::Cache={}", cache.display()).into());
        let mut apt = Self { options, downloads };
        // A third-party source that does not answer is a warning for apt, and for us.
        let update = run(apt.command("apt-get").args(["-q", "update"]), "fetching package lists");
        if update.is_err() || apt.closure(ROOT_PACKAGE).is_err() {
            progress("the archive does not answer; trying the system's package lists");
            apt.options = system;
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).current_dir(&self.downloads);
        command
    }

    /// The packages that `root` needs at run time, itself included.
    fn closure(&self, root: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--recurse", "--no-recommends", "--no-suggests"]);
        command.args(["--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", root]);
        let out = command.output().context("cannot run apt-cache")?;
        let text = String::from_utf8_lossy(&out.stdout);
        let names: Vec<String> = text
            .lines()
            .filter(|l| l.starts_with(|c: char| c.is_ascii_alphanumeric()))
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            bail!(
                "the package lists do not know {root} (Debian 12 carries it in bookworm-security)"
            );
        }
        Ok(names)
    }
}

/// Downloads and unpacks everything; returns the version of LLVM that the compiler uses.
fn unpack_packages(apt: &Apt, base: &Path) -> Result<String> {
    let closure = apt.closure(ROOT_PACKAGE)?;
    let llvm = closure
        .iter()
        .find_map(|name| name.strip_prefix("libllvm"))
        .context("the compiler's packages name no LLVM")?
        .to_owned();
    let mut wanted: Vec<String> = closure.into_iter().filter(|name| !installed(name)).collect();
    wanted.extend(["rustc-web".into(), "rust-web-src".into(), format!("llvm-{llvm}-dev")]);

    progress(&format!("downloading {}", wanted.join(" ")));
    run(apt.command("apt-get").args(["-q", "download"]).args(&wanted), "downloading packages")?;
    let root = base.join("root");
    let mut unpacked = 0;
    for entry in fs::read_dir(&apt.downloads)? {
        let deb = entry?.path();
        if deb.extension().is_some_and(|e| e == "deb") {
            run(Command::new("dpkg").arg("-x").args([&deb, &root]), "unpacking a package")?;
            unpacked += 1;
        }
    }
    progress(&format!("unpacked {unpacked} packages"));
    fs::remove_dir_all(&apt.downloads)?;
    Ok(llvm)
}

fn installed(package: &str) -> bool {
    quiet_output("dpkg-query", &["-W", "-f=${db:Status-Status}", package])
        .is_some_and(|status| status.starts_with("installed"))
}

/// The folders in which the unpacked programs find their shared libraries, for LD_LIBRARY_PATH.
fn library_path(base: &Path, llvm: &str) -> String {
    let usr = base.join("root/usr/lib");
    let multiarch = format!("{}-linux-gnu", env::consts::ARCH);
    [
        usr.join(&multiarch),
        usr.join(format!("llvm-{llvm}/lib")),
        base.join("root/lib").join(multiarch),
    ]
    .map(|p| p.display().to_string())
    .join(":")
}

fn write_wrapper(base: &Path, llvm: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let wrapper = base.join("rustc");
    // The linker is a child of the compiler, so it inherits the path to LLVM.
    let script = format!(
        "#!/bin/sh\nexport LD_LIBRARY_PATH='{}'\nexec '{}' \"$@\"\n",
        library_path(base, llvm),
        base.join("root/usr/bin/rustc").display()
    );
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn install_linker(base: &Path, llvm: &str) -> Result<()> {
    progress(&format!("building bpf-linker {BPF_LINKER} for LLVM {llvm}"));
    let scratch = base.join("linker-build");
    let mut command = Command::new(cargo());
    command
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--quiet", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
        .arg(base)
        .env("CARGO_TARGET_DIR", &scratch)
        .env("LLVM_PREFIX", base.join(format!("root/usr/lib/llvm-{llvm}")))
        // The link of bpf-linker itself resolves what libLLVM.so needs.
        .env("LD_LIBRARY_PATH", library_path(base, llvm));
    run(&mut command, "building bpf-linker")?;
    // Only the program is kept: its build folder is ten times its size.
    let _ = fs::remove_dir_all(&scratch);
    Ok(())
}

/// The cargo that runs this program, or the one on PATH.
fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{what}: cannot start {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{what} failed ({status}): {command:?}");
    }
    Ok(())
}

/// The output of a command, or None if it could not run or failed.
fn quiet_output(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

#[expect(clippy::print_stderr, reason = "progress of a build is for the person who waits")]
fn progress(line: &str) {
    eprintln!("ebpf: {line}");
}
