//! The one door: build, test, demo and VMs.

mod ebpf;

fn main() -> anyhow::Result<()> {
    let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    ebpf::build(workspace)?;
    Ok(())
}
