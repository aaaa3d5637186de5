//! Upstream names, resolved by egret itself.
