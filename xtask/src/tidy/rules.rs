//! Pure: the rules, as functions from one file's text to complaints.

/// A source file; the path is relative to the workspace.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
}

/// What is wrong and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) line: usize,
    pub(super) text: String,
}

/// A rule by name.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) check: fn(&File) -> Vec<Complaint>,
}

pub(super) const RULES: &[Rule] = &[
    Rule { name: "module-doc", check: module_doc },
    Rule { name: "pure", check: pure },
    Rule { name: "unsafe", check: unsafe_code },
    Rule { name: "length", check: length },
    Rule { name: "sled", check: sled },
    Rule { name: "println", check: println },
    Rule { name: "dependency-reason", check: dependency_reason },
    Rule { name: "words", check: words },
];

/// (rule, path or the beginning of one, why the rule does not hold there)
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("unsafe", "userspace/src/sys/", "the one folder for calls that the compiler cannot check"),
    ("unsafe", "agent-ebpf/src/", "kernel programs read contexts and maps through pointers"),
    ("sled", "userspace/src/audit/store.rs", "the one file that knows the store's engine"),
    ("println", "userspace/src/cli/", "the command line prints"),
    ("println", "userspace/src/main.rs", "the last error before the exit code"),
    ("println", "userspace/build.rs", "build scripts speak to cargo by printing"),
    ("println", "xtask/src/", "a command line tool"),
    ("println", "vm-tests/src/", "a command line tool"),
    ("println", "userspace/benches/", "a bench prints its table"),
    ("println", "userspace/tests/", "a test says aloud what it could not run"),
    ("words", "xtask/src/tidy/rules.rs", "the list itself"),
];

/// Lines a file may have; a longer one has more than one job.
const LONGEST: usize = 450;

/// What a pure file must not name: anything that reads the world or waits for it.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::os::unix::net",
    "SystemTime::now",
    "Instant::now",
    "std::process",
    "aya::",
    "sled::",
];

/// Words that promise instead of saying, and notes to nobody.
const WORDS: &[&str] = &[
    "blazing",
    "cutting-edge",
    "effortless",
    "robustly",
    "seamless",
    "state-of-the-art",
    "world-class",
    "FIXME",
    "XXX",
];

fn excepted(rule: &str, path: &str) -> bool {
    EXCEPTIONS.iter().any(|(r, p, _)| *r == rule && path.starts_with(p))
}

/// Exceptions whose file or folder is gone.
pub(super) fn stale_exceptions(files: &[File]) -> Vec<String> {
    EXCEPTIONS
        .iter()
        .filter(|(_, path, _)| !files.iter().any(|f| f.path.starts_with(path)))
        .map(|(rule, path, _)| format!("{rule}: {path}"))
        .collect()
}

fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

/// The lines of code: number from 1, and the text before any `//`. Lines inside the file's
/// trailing `#[cfg(test)]` module are left out, since tests may do what the code may not.
fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .enumerate()
        .map(|(n, line)| (n + 1, line.split("//").next().unwrap_or("")))
}

fn complain(line: usize, text: impl Into<String>) -> Complaint {
    Complaint { line, text: text.into() }
}

fn module_doc(file: &File) -> Vec<Complaint> {
    let first = file.text.lines().find(|l| !l.starts_with("#!") && !l.trim().is_empty());
    if !is_rust(file) || first.is_some_and(|l| l.starts_with("//! ")) {
        return Vec::new();
    }
    vec![complain(1, "a file opens with `//!` and says what it is for")]
}

fn pure(file: &File) -> Vec<Complaint> {
    if !is_rust(file) || !file.text.starts_with("//! Pure:") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (n, line) in code(file) {
        // String literals may speak of anything.
        if let Some(word) = IMPURE.iter().find(|w| outside_strings(line).contains(**w)) {
            found.push(complain(n, format!("a pure file does not use `{word}`")));
        }
    }
    found
}

fn unsafe_code(file: &File) -> Vec<Complaint> {
    if !is_rust(file) || excepted("unsafe", &file.path) {
        return Vec::new();
    }
    let is_unsafe = |line: &str| {
        outside_strings(line)
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|w| w == "unsafe")
    };
    code(file)
        .filter(|(_, line)| is_unsafe(line))
        .map(|(n, _)| complain(n, "`unsafe` belongs in userspace/src/sys or agent-ebpf"))
        .collect()
}

fn length(file: &File) -> Vec<Complaint> {
    let lines = file.text.lines().count();
    if is_rust(file) && lines > LONGEST {
        return vec![complain(LONGEST, format!("{lines} lines; more than {LONGEST} is two jobs"))];
    }
    Vec::new()
}

fn sled(file: &File) -> Vec<Complaint> {
    if !is_rust(file) || excepted("sled", &file.path) {
        return Vec::new();
    }
    code(file)
        .filter(|(_, line)| outside_strings(line).contains("sled::"))
        .map(|(n, _)| complain(n, "only userspace/src/audit/store.rs knows sled"))
        .collect()
}

fn println(file: &File) -> Vec<Complaint> {
    if !is_rust(file) || excepted("println", &file.path) {
        return Vec::new();
    }
    code(file)
        .filter(|(_, line)| {
            let line = outside_strings(line);
            ["println!", "print!"].iter().any(|m| line.contains(m))
        })
        .map(|(n, _)| complain(n, "only the command line prints; elsewhere, return or log"))
        .collect()
}

fn dependency_reason(file: &File) -> Vec<Complaint> {
    if !file.path.ends_with("Cargo.toml") {
        return Vec::new();
    }
    let (mut inside, mut found) = (false, Vec::new());
    for (n, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim_end().ends_with("dependencies]");
        } else if inside && line.contains('=') && !line.starts_with('#') && !line.contains(" # ") {
            found.push(complain(n + 1, "a dependency says in a comment why it is here"));
        }
    }
    found
}

fn words(file: &File) -> Vec<Complaint> {
    if excepted("words", &file.path) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (n, line) in file.text.lines().enumerate() {
        if let Some(word) = WORDS.iter().find(|w| line.contains(**w)) {
            found.push(complain(n + 1, format!("\"{word}\" says nothing; say the fact")));
        }
        if line.contains('\u{2014}') {
            found.push(complain(n + 1, "an em dash; use a comma, a colon or a full stop"));
        }
    }
    found
}

/// A line without the content of its string literals. Good enough for one line of formatted
/// code; a raw string over several lines is not followed.
fn outside_strings(line: &str) -> String {
    let (mut out, mut inside, mut escaped) = (String::new(), false, false);
    for c in line.chars() {
        match (inside, escaped, c) {
            (true, true, _) => escaped = false,
            (true, false, '\\') => escaped = true,
            (_, _, '"') => inside = !inside,
            (false, ..) => out.push(c),
            (true, ..) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(rule: &str, path: &str, text: &str) -> Vec<usize> {
        let rule = RULES.iter().find(|r| r.name == rule).unwrap();
        let file = File { path: path.to_owned(), text: text.to_owned() };
        (rule.check)(&file).into_iter().map(|c| c.line).collect()
    }

    #[test]
    fn each_rule_finds_its_fault_and_nothing_else() {
        let lib = "userspace/src/policy/x.rs";
        let long = format!("//! x\n{}", "\n".repeat(LONGEST));
        let dash = "//! a \u{2014} b\n";
        let cases: &[(&str, &str, &str, &[usize])] = &[
            ("module-doc", lib, "//! What it is for.\nfn a() {}\n", &[]),
            ("module-doc", lib, "#![no_std]\n\n//! Late but there.\n", &[]),
            ("module-doc", lib, "use std::fmt;\n//! too late\n", &[1]),
            ("module-doc", lib, "", &[1]),
            ("module-doc", "README.md", "# egret\n", &[]),
            ("pure", lib, "//! Pure: x\nuse std::fmt;\n", &[]),
            ("pure", lib, "//! Pure: x\nuse std::net::IpAddr;\n", &[]),
            ("pure", lib, "//! Pure: x\nuse tokio::net::TcpStream;\n", &[2]),
            ("pure", lib, "//! Pure: x\nuse std::net::TcpStream;\n", &[2]),
            ("pure", lib, "//! Pure: x\nlet t = SystemTime::now();\n", &[2]),
            ("pure", lib, "//! Pure: x\n// tokio::net is not used\n", &[]),
            ("pure", lib, "//! Pure: x\nlet t = \"sled::\";\n", &[]),
            ("pure", lib, "//! Pure: x\n#[cfg(test)]\nmod tests { use std::fs; }\n", &[]),
            ("pure", lib, "//! Not pure\nuse tokio::net::TcpStream;\n", &[]),
            ("unsafe", lib, "fn a() { unsafe { b() } }\n", &[1]),
            ("unsafe", lib, "#![expect(unsafe_code)]\n", &[]),
            ("unsafe", "userspace/src/sys/x.rs", "unsafe { b() }\n", &[]),
            ("length", lib, &long, &[LONGEST]),
            ("length", lib, "//! x\n", &[]),
            ("sled", lib, "let db = sled::open(p)?;\n", &[1]),
            ("sled", "userspace/src/audit/store.rs", "let db = sled::open(p)?;\n", &[]),
            ("println", lib, "println!(\"x\");\n", &[1]),
            ("println", lib, "eprintln!(\"x\");\n", &[1]),
            ("println", "userspace/src/cli/run.rs", "println!(\"x\");\n", &[]),
            ("dependency-reason", "a/Cargo.toml", "[dependencies]\nx = \"1\" # why\n", &[]),
            ("dependency-reason", "a/Cargo.toml", "[dependencies]\nx = \"1\"\n", &[2]),
            (
                "dependency-reason",
                "a/Cargo.toml",
                "[target.'cfg(x)'.dependencies]\nx = \"1\"\n",
                &[2],
            ),
            ("dependency-reason", "a/Cargo.toml", "[package]\nname = \"x\"\n", &[]),
            ("words", "README.md", "A seamless thing.\n", &[1]),
            ("words", "README.md", "A thing.\n", &[]),
            ("words", "README.md", dash, &[1]),
        ];
        for (rule, path, text, expected) in cases {
            assert_eq!(&complaints(rule, path, text), expected, "{rule}: {text:?}");
        }
    }

    #[test]
    fn every_rule_has_a_case_and_every_exception_a_reason() {
        for (rule, path, reason) in EXCEPTIONS {
            assert!(RULES.iter().any(|r| r.name == *rule), "{rule}");
            assert!(!path.is_empty() && reason.len() > 10, "{rule} {path}");
        }
    }

    #[test]
    fn an_exception_for_a_file_that_is_gone_is_found() {
        assert_eq!(stale_exceptions(&[]).len(), EXCEPTIONS.len());
    }
}
