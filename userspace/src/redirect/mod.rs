//! Stage 1: the traffic of an agent arrives. Kernel programs, cgroups, namespaces, listeners and
//! the lookup that turns an accepted socket back into the flow the agent meant.

pub mod attach;
pub mod attachment;
pub mod bpffs;
pub mod cgroup;
pub mod ebpf;
pub mod events;
pub mod feed;
pub mod guards;
pub mod listener;
mod load;
pub mod local;
pub mod netns;
pub mod orig_dst;
pub mod pins;
pub mod run_time;
pub mod self_test;
pub mod target;
