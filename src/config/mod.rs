//! From what the operator wrote to [`crate::gateway::Settings`].
