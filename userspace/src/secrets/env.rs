//! `env:NAME`: a variable of the operator's environment.

use std::os::unix::ffi::OsStringExt;

use super::{Operator, Raw, SecretProblem};

/// Reads the variable. The caller removes it from the agent's environment.
pub(super) fn read(name: &str, operator: &Operator) -> Result<Raw, SecretProblem> {
    let value = operator.env(name).ok_or_else(|| SecretProblem::EnvUnset(name.into()))?;
    Ok(Raw::new(value.into_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_set_and_names_what_is_not() {
        let operator = Operator::new(0, |n| (n == "TOKEN").then(|| "hunter2hunter2".into()));
        assert_eq!(&**read("TOKEN", &operator).unwrap(), b"hunter2hunter2");
        let e = read("TOKEM", &operator).unwrap_err().to_string();
        assert!(e.contains("TOKEM is not set"), "{e}");
        assert!(!e.contains("hunter2"), "{e}");
    }
}
