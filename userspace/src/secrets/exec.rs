//! `exec:CMD ARGS`: a command that knows the secret.
//!
//! The protocol, version 1. The command gets one JSON object on its standard input:
//! `{"version":1,"credential":"github","hosts":["api.github.com"]}`. It answers with one JSON
//! object on its standard output, `{"version":1,"secret":"…"}` or `{"error":"…"}`, and ends with
//! status 0, within 10 seconds. What it writes to standard error is shown when it fails; its
//! standard output never is.
//!
//! It runs without a shell, in `/`, in its own process group, as the operator (not as root when
//! sudo started egret), with an environment of PATH, HOME, USER, LOGNAME and LANG only. Whatever
//! it leaves running in its process group is killed when it has answered.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, Uid, User};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::error::Stderr;
use super::pipes::{Collected, Pipes, Stopped};
use super::{Operator, Raw, SecretProblem};

/// How long a command may take, start to end.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Room for the longest secret, with every byte escaped as a six-byte `\u` escape in the worst case.
const MAX_ANSWER: usize = 6 * super::MAX_SECRET + 1024;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the command is asked.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    version: u8,
    credential: &'a str,
    hosts: &'a [String],
}

impl<'a> Request<'a> {
    pub(super) fn new(credential: &'a str, hosts: &'a [String]) -> Self {
        Self { version: 1, credential, hosts }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    version: Option<u64>,
    #[serde(default, deserialize_with = "wiped")]
    secret: Option<Zeroizing<String>>,
    error: Option<String>,
}

fn wiped<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Option::<String>::deserialize(from).map(|secret| secret.map(Zeroizing::new))
}

/// Runs the command and returns the secret it answered with.
pub(super) fn run(
    words: &[String],
    request: &Request<'_>,
    operator: &Operator,
) -> Result<Raw, SecretProblem> {
    run_within(words, request, operator, TIMEOUT)
}

fn run_within(
    words: &[String],
    request: &Request<'_>,
    operator: &Operator,
    timeout: Duration,
) -> Result<Raw, SecretProblem> {
    let program = words.first().cloned().unwrap_or_default();
    let deadline = Instant::now() + timeout;
    let mut child = command(words, operator)
        .spawn()
        .map_err(|source| SecretProblem::ExecStart { program: program.clone(), source })?;
    let question = serde_json::to_vec(request).unwrap_or_default();
    let talked = Pipes::of(&mut child, question, MAX_ANSWER).and_then(|p| p.run(deadline));
    let status = finish(&mut child, talked.is_ok().then_some(deadline));
    let failed = |source| SecretProblem::ExecIo { program: program.clone(), source };
    let Collected { answer, stderr, stopped } = talked.map_err(failed)?;
    let stderr = Stderr(printable(&stderr));
    let program = program.clone();
    match (stopped, status.map_err(failed)?) {
        (Some(Stopped::TooMuch), _) => {
            Err(SecretProblem::ExecOutput { program, limit: MAX_ANSWER, stderr })
        }
        (Some(Stopped::Late), _) | (None, None) => {
            Err(SecretProblem::ExecTimeout { program, seconds: timeout.as_secs(), stderr })
        }
        (None, Some(status)) => judge(program, status, &answer, stderr),
    }
}

fn command(words: &[String], operator: &Operator) -> Command {
    let mut command = Command::new(words.first().map_or("", String::as_str));
    command
        .args(words.iter().skip(1))
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let uid = Uid::from_raw(operator.uid());
    if let Ok(Some(user)) = User::from_uid(uid) {
        command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
        if Uid::effective().is_root() && !uid.is_root() {
            // Setting a uid as root also clears the supplementary groups.
            command.gid(user.gid.as_raw()).uid(uid.as_raw());
        }
    } else if Uid::effective().is_root() && !uid.is_root() {
        command.gid(uid.as_raw()).uid(uid.as_raw());
    }
    command
}

/// Waits until the command has ended or `deadline` has passed (`None`: at once), kills what is
/// left of its process group, and reaps it. `Ok(None)`: it had not ended by itself.
fn finish(child: &mut Child, deadline: Option<Instant>) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let ended = loop {
        // WNOWAIT: the pid stays taken until the group has been killed.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(pid), flags) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => break true,
            Err(nix::Error::EINTR) => continue,
            Err(_) => break false,
        }
        if deadline.is_none_or(|d| Instant::now() >= d) {
            break false;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    // ESRCH is the usual answer: nothing was left.
    let _ = killpg(pid, Signal::SIGKILL);
    let status = child.wait()?;
    Ok(ended.then_some(status))
}

fn judge(
    program: String,
    status: ExitStatus,
    answer: &[u8],
    stderr: Stderr,
) -> Result<Raw, SecretProblem> {
    let parsed = serde_json::from_slice::<Answer>(answer);
    if let Ok(Answer { error: Some(message), .. }) = &parsed {
        let message = printable(message.as_bytes());
        return Err(SecretProblem::ExecRefused { program, message });
    }
    if !status.success() {
        let status = match (status.code(), status.signal()) {
            (Some(code), _) => format!("status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown status".into(),
        };
        return Err(SecretProblem::ExecFailed { program, status, stderr });
    }
    // The parser's own message could quote the answer, so it is not shown.
    let why = match parsed {
        Ok(Answer { version: Some(1), secret: Some(secret), error: None }) => {
            return Ok(Raw::new(secret.as_bytes().to_vec()));
        }
        Ok(Answer { version: Some(1), .. }) => "it has no `secret`",
        Ok(Answer { version: None, .. }) => "it has no `version`",
        Ok(_) => "its `version` is not 1",
        Err(_) if answer.is_empty() => "it answered nothing",
        Err(_) => "it is not such an object",
    };
    Err(SecretProblem::ExecAnswer { program, why, stderr })
}

/// Text of a command on one line: trimmed, control characters escaped, at most 500 characters.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut line = String::new();
    for c in text.trim().chars().take(500) {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Result<Raw, SecretProblem> {
        sh_within(script, Duration::from_secs(10))
    }

    fn sh_within(script: &str, timeout: Duration) -> Result<Raw, SecretProblem> {
        let words = ["/bin/sh", "-c", script].map(String::from);
        let hosts = ["api.test".to_owned()];
        let operator = Operator::new(Uid::effective().as_raw(), |_| None);
        run_within(&words, &Request::new("github", &hosts), &operator, timeout)
    }

    const GOOD: &str = r#"printf '{"version":1,"secret":"correct horse"}'"#;

    #[test]
    fn answers_with_the_secret() {
        assert_eq!(&**sh(GOOD).unwrap(), b"correct horse");
        assert_eq!(
            &**sh(&format!("{GOOD}; echo >&2 noise; exec sleep 0")).unwrap(),
            b"correct horse"
        );
    }

    #[test]
    fn gets_the_request_on_stdin() {
        let script = r#"read -r q; [ "$q" = '{"version":1,"credential":"github","hosts":["api.test"]}' ] || exit 7;"#;
        // `read` wants a line; the request has no line break, so read ends at end of file.
        let script = script.replace("read -r q;", "q=$(cat);");
        assert_eq!(&**sh(&format!("{script} {GOOD}")).unwrap(), b"correct horse");
    }

    #[test]
    fn failures_are_told_apart_and_never_quote_the_answer() {
        for (script, want) in [
            (r#"printf '{"error":"vault is sealed"}'"#, "refused: vault is sealed"),
            (r#"printf '{"error":"vault is sealed"}'; exit 1"#, "refused: vault is sealed"),
            ("echo no such item >&2; exit 3", "ended with status 3; it said: no such item"),
            ("kill -9 $$", "ended with signal 9"),
            (&format!("{GOOD}; exit 1"), "ended with status 1"),
            ("true", "it answered nothing"),
            ("echo correct horse", "it is not such an object"),
            (r#"printf '{"version":1,"secret":["correct horse"]}'"#, "not such an object"),
            (r#"printf '{"version":2,"secret":"correct horse"}'"#, "`version` is not 1"),
            (r#"printf '{"secret":"correct horse"}'"#, "no `version`"),
            (r#"printf '{"version":1}'"#, "no `secret`"),
            (r#"printf '{"version":1,"secret":"correct horse","x":1}'"#, "not such an object"),
            (&format!("{GOOD}; {GOOD}"), "not such an object"),
            ("head -c 1000000 /dev/zero", "answered more than"),
            ("printf 'a\\033[31mb' >&2; exit 1", "a\\u{1b}[31mb"),
        ] {
            let e = sh(script).expect_err(script);
            let text = format!("{e} {e:?}");
            assert!(text.contains(want), "{script}: {text}");
            assert!(!text.contains("correct"), "{script}: {text}");
        }
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pidfile.display());
        let e = sh_within(&script, Duration::from_millis(300)).unwrap_err();
        assert!(matches!(e, SecretProblem::ExecTimeout { .. }), "{e}");
        let pid: i32 = std::fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap();
        assert!(is_gone(pid), "the child of the command still runs");
    }

    #[test]
    fn what_the_command_leaves_behind_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pid");
        let script = format!("sleep 600 >/dev/null 2>&1 & echo $! > {}; {GOOD}", pidfile.display());
        assert_eq!(&**sh(&script).unwrap(), b"correct horse");
        let pid: i32 = std::fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap();
        assert!(is_gone(pid), "the child of the command still runs");
    }

    /// Gone, or dead and waiting for a reaper that is not us. Polls, because the kill is not
    /// synchronous.
    fn is_gone(pid: i32) -> bool {
        (0..500).any(|_| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = stat.rsplit(") ").next().and_then(|s| s.chars().next());
            let gone = matches!(state, None | Some('Z' | 'X'));
            if !gone {
                std::thread::sleep(Duration::from_millis(10));
            }
            gone
        })
    }

    #[test]
    fn the_environment_is_clean() {
        let secret = |script: &str| String::from_utf8(sh(script).unwrap().to_vec()).unwrap();
        let names = secret(
            r#"printf '{"version":1,"secret":"%s"}' "$(env | cut -d= -f1 | sort | tr '\n' ' ')""#,
        );
        for name in names.split_whitespace() {
            let known = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "PWD", "OLDPWD", "SHLVL", "_"];
            assert!(known.contains(&name), "{name} leaked into the command's environment");
        }
        assert!(names.contains("PATH"), "{names}");
    }

    #[test]
    fn a_command_that_does_not_exist() {
        let operator = Operator::new(Uid::effective().as_raw(), |_| None);
        let e = run(&["egret-no-such-command".into()], &Request::new("x", &[]), &operator);
        assert!(matches!(e, Err(SecretProblem::ExecStart { .. })));
    }
}
