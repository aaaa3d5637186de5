//! Stage 1: the traffic of an agent arrives. Kernel programs, cgroups, namespaces, listeners and
//! the lookup that turns an accepted socket back into the flow the agent meant.

pub mod listener;
pub mod netns;
