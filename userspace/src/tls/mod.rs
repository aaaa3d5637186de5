//! Stage 4: open it. ClientHello, server name, leaf certificates, termination, and TLS towards the upstream.
