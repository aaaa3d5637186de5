//! What is kept comes back; what is not right is named and left alone.

use std::os::unix::fs::{chown, symlink};

use super::*;
use crate::tls::authority::Facts;

struct Kept {
    state: tempfile::TempDir,
}

impl Kept {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap() }
    }
    fn dir(&self) -> PathBuf {
        self.state.path().join("ca")
    }
    fn key(&self) -> PathBuf {
        self.dir().join(KEY)
    }
    fn certificate(&self) -> PathBuf {
        self.dir().join(CERTIFICATE)
    }
    fn open(&self) -> Authority {
        Authority::load_or_create(&self.dir()).unwrap()
    }
    /// The error, after making sure that nothing in the state folder was changed by it.
    fn refused(&self) -> String {
        let before = self.everything();
        let error = Authority::load_or_create(&self.dir()).unwrap_err().to_string();
        assert_eq!(self.everything(), before, "{error}");
        error
    }
    fn everything(&self) -> Vec<(PathBuf, u32, Vec<u8>)> {
        let mut all = Vec::new();
        for folder in [self.state.path().to_path_buf(), self.dir()] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let mode = entry.metadata().unwrap().mode();
                all.push((entry.path(), mode, fs::read(entry.path()).unwrap_or_default()));
            }
        }
        all.sort();
        all
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_first_call_makes_and_every_other_finds() {
    let kept = Kept::new();
    assert!(Authority::load(&kept.dir()).unwrap().is_none());
    assert_eq!(certificate(&kept.dir()).unwrap(), None);
    let made = kept.open();
    assert_eq!(kept.open().der(), made.der());
    assert_eq!(Authority::load(&kept.dir()).unwrap().unwrap().der(), made.der());
    assert_eq!(certificate(&kept.dir()).unwrap().unwrap(), made.pem());
    assert_eq!((mode(&kept.key()), mode(&kept.certificate())), (0o600, 0o644));
    assert_eq!(mode(&kept.dir()), 0o755);
    let facts = Facts::of(&made.pem()).unwrap();
    let years = (facts.not_after - OffsetDateTime::now_utc()).whole_days() / 365;
    assert!((4..=5).contains(&years), "{facts:?}");
    assert_eq!(fs::read_dir(kept.state.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn a_beginning_that_was_killed_is_begun_again() {
    let kept = Kept::new();
    fs::create_dir(kept.state.path().join("ca.new")).unwrap();
    fs::write(kept.state.path().join("ca.new").join(KEY), "half").unwrap();
    fs::create_dir(kept.dir()).unwrap(); // an empty folder is as good as none
    kept.open();
    assert!(!kept.state.path().join("ca.new").exists());
}

#[test]
fn many_at_once_agree_on_one() {
    let kept = Kept::new();
    let dir = kept.dir();
    let all: Vec<_> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| Authority::load_or_create(&dir).unwrap().pem());
        let started: Vec<_> = (0..8).map(|_| start()).collect();
        started.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(all.iter().all(|pem| *pem == all[0]));
}

#[test]
fn loose_modes_are_refused() {
    type Place = fn(&Kept) -> PathBuf;
    let cases: [(Place, u32, u32, &str); 6] = [
        (Kept::key, 0o640, 0o600, "others may have read it"),
        (Kept::key, 0o604, 0o600, "`chmod 0600"),
        (Kept::key, 0o4600, 0o600, ""), // set-user-id lets nobody read
        (Kept::certificate, 0o664, 0o644, "replaced"),
        (Kept::dir, 0o775, 0o755, "replaced"),
        (|k| k.state.path().to_path_buf(), 0o777, 0o700, "replaced"),
    ];
    for (place, loose, right, says) in cases {
        let kept = Kept::new();
        let made = kept.open().pem();
        let path = place(&kept);
        fs::set_permissions(&path, Permissions::from_mode(loose)).unwrap();
        if says.is_empty() {
            kept.open();
        } else {
            let error = kept.refused();
            assert!(error.contains(says) && error.contains(&format!("{loose:04o}")), "{error}");
        }
        fs::set_permissions(&path, Permissions::from_mode(right)).unwrap();
        assert_eq!(kept.open().pem(), made, "the control: {}", path.display());
    }
}

#[test]
fn foreign_owners_are_refused() {
    if !geteuid().is_root() {
        return; // giving a file away needs root
    }
    for place in [Kept::key, Kept::certificate, Kept::dir] {
        let kept = Kept::new();
        kept.open();
        chown(place(&kept), Some(12345), None).unwrap();
        let error = kept.refused();
        assert!(error.contains("belongs to uid 12345"), "{error}");
    }
}

#[test]
fn halves_links_and_damage_are_refused() {
    let half = |gone: fn(&Kept) -> PathBuf, says: &str| {
        let kept = Kept::new();
        kept.open();
        fs::remove_file(gone(&kept)).unwrap();
        let error = kept.refused();
        assert!(error.contains(says) && error.contains("egret ca rotate"), "{error}");
    };
    half(Kept::key, "ca.key is not");
    half(Kept::certificate, "ca.pem is not");

    let kept = Kept::new();
    kept.open();
    let other = Kept::new();
    other.open();
    fs::remove_file(kept.key()).unwrap();
    symlink(other.key(), kept.key()).unwrap();
    assert!(kept.refused().contains("not a plain file"));

    let kept = Kept::new();
    kept.open();
    fs::write(kept.certificate(), fs::read(other.certificate()).unwrap()).unwrap();
    assert!(kept.refused().contains("another key"));
    fs::write(kept.certificate(), "").unwrap();
    assert!(kept.refused().contains("not one PEM certificate"));
    fs::write(kept.key(), "garbage").unwrap();
    assert!(kept.refused().contains("key is damaged"));

    let kept = Kept::new();
    fs::write(kept.dir(), "").unwrap();
    assert!(kept.refused().contains("not a plain folder"));
}

#[test]
fn an_expired_authority_is_refused_with_its_date() {
    let kept = Kept::new();
    kept.open();
    let old = Authority::generate_for("old", Duration::seconds(-1)).unwrap().to_pem_pair();
    fs::write(kept.key(), old.key.as_bytes()).unwrap();
    fs::write(kept.certificate(), &old.certificate).unwrap();
    let error = kept.refused();
    assert!(error.contains("expired on 2") && error.contains("egret ca rotate"), "{error}");
}

#[test]
fn rotation_keeps_the_old_pair_and_heals_everything() {
    let kept = Kept::new();
    let first = rotate(&kept.dir()).unwrap();
    assert!(first.kept.is_none(), "there was none");
    let second = rotate(&kept.dir()).unwrap();
    let aside = second.kept.unwrap();
    assert_eq!(kept.open().der(), second.authority.der());
    assert_ne!(first.authority.der(), second.authority.der());
    assert_eq!(fs::read_to_string(aside.join(CERTIFICATE)).unwrap(), first.authority.pem());
    assert_eq!((mode(&aside), mode(&aside.join(KEY))), (0o700, 0o600));
    let subject = |a: &Authority| Facts::of(&a.pem()).unwrap().subject;
    assert_ne!(subject(&first.authority), subject(&second.authority));

    fs::write(kept.key(), "damaged").unwrap();
    kept.refused();
    let third = rotate(&kept.dir()).unwrap();
    assert_eq!(kept.open().der(), third.authority.der());
    assert_eq!(fs::read_to_string(third.kept.unwrap().join(KEY)).unwrap(), "damaged");
}
