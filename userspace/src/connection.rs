//! The spine: the life of a connection, one call per stage.
