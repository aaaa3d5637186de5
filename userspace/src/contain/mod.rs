//! Beside the flow: how `run` starts a command that has nowhere else to go.
