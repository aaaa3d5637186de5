//! Stage 7: send it on. Dial by name with a Permit, verify, pool, stream.
