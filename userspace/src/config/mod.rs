//! Beside the flow: from what a person wrote (files, flags) to checked values.
