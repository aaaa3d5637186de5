//! Pure: the presets that every egret carries.

use super::UsedFile;

/// Name and text of each preset.
pub const PRESETS: &[(&str, &str)] = &[
    ("npm-readonly", include_str!("../../../../policies/presets/npm-readonly.toml")),
    ("pypi-readonly", include_str!("../../../../policies/presets/pypi-readonly.toml")),
    ("crates-readonly", include_str!("../../../../policies/presets/crates-readonly.toml")),
    ("debian-readonly", include_str!("../../../../policies/presets/debian-readonly.toml")),
];

/// The preset of this name.
pub fn preset(name: &str) -> Option<UsedFile> {
    let (name, text) = PRESETS.iter().find(|(n, _)| *n == name)?;
    Some(UsedFile {
        id: format!("preset:{name}"),
        file: format!("preset {name}"),
        prefix: (*name).to_owned(),
        text: (*text).to_owned(),
    })
}
