//! From the compiled object to maps and programs in the kernel.
//!
//! aya reads the object and makes the maps; the programs go to the kernel from here. aya's own
//! loader first parses the types of the whole running kernel (40 ms), which these programs do not
//! use, and verifies one program after the other; here every core verifies some.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::thread;

use agent_ebpf::abi::Hook;
use aya::maps::MapData;
use aya_obj::{EbpfSectionKind, Object};

use super::ebpf::{KernelError, KernelOptions, attach_type};
use crate::sys::bpf::{self, Functions, NewProgram};

/// The programs, compiled from `agent-ebpf` and embedded.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egret.bpf.o"));

/// Maps that a daemon pins, so that the next one finds them.
const PINNED: [&str; 7] = ["AGENTS", "LISTENERS", "LEASE", "SOCKS", "FLOWS", "EVENTS", "STATS"];

/// What the kernel holds for us.
pub(super) struct Loaded {
    pub(super) maps: HashMap<String, MapData>,
    /// In the order of [`Hook::ALL`].
    pub(super) programs: Vec<(Hook, OwnedFd)>,
}

/// Makes every map and loads every program.
pub(super) fn load(options: &KernelOptions) -> Result<Loaded, KernelError> {
    let mut object = Object::parse(OBJECT).map_err(failed)?;
    let types = load_types(&mut object)?;
    let maps = make_maps(&mut object, types.as_ref(), options)?;
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let made = maps
        .iter()
        .map(|(name, data)| (name.as_str(), data.map.fd().as_fd().as_raw_fd(), &data.definition));
    object.relocate_maps(made, &sections).map_err(failed)?;
    object.relocate_calls(&sections).map_err(failed)?;
    object.sanitize_functions(aya::features());
    let programs = load_programs(&object, types.as_ref())?;
    let maps = maps.into_iter().map(|(name, made)| (name, made.map)).collect();
    Ok(Loaded { maps, programs })
}

/// Gives the object's types to the kernel: socket storage must name those of its key and value, and
/// functions theirs.
fn load_types(object: &mut Object) -> Result<Option<OwnedFd>, KernelError> {
    let types = match aya::features().btf() {
        Some(features) => object.fixup_and_sanitize_btf(features).map_err(failed)?,
        None => None,
    };
    types.map(|btf| bpf::load_types(&btf.to_bytes())).transpose().map_err(failed)
}

/// A map in the kernel, and as the object defines it.
struct Made {
    map: MapData,
    definition: aya_obj::Map,
}

fn make_maps(
    object: &mut Object,
    types: Option<&OwnedFd>,
    options: &KernelOptions,
) -> Result<HashMap<String, Made>, KernelError> {
    let mut made = HashMap::new();
    for (name, mut definition) in object.maps.drain() {
        if let ("FLOWS", Some(max)) = (name.as_str(), options.max_flows) {
            definition.set_max_entries(max);
        }
        let pin = options.pin_dir.as_ref().filter(|_| PINNED.contains(&name.as_str()));
        let pin = pin.map(|dir| dir.join(&name));
        let map = make_map(&name, &definition, types, pin)?;
        made.insert(name, Made { map, definition });
    }
    Ok(made)
}

fn make_map(
    name: &str,
    definition: &aya_obj::Map,
    types: Option<&OwnedFd>,
    pin: Option<PathBuf>,
) -> Result<MapData, KernelError> {
    if let Some(found) = pin.as_deref().and_then(|path| MapData::from_pin(path).ok()) {
        return Ok(found);
    }
    let types = types.map(OwnedFd::as_fd);
    let map = MapData::create(definition.clone(), name, types).map_err(failed)?;
    if !definition.data().is_empty() {
        bpf::map_fill(map.fd().as_fd(), definition.data()).map_err(failed)?;
    }
    if definition.section_kind() == EbpfSectionKind::Rodata {
        bpf::map_freeze(map.fd().as_fd()).map_err(failed)?;
    }
    if let Some(path) = pin {
        map.pin(path).map_err(failed)?;
    }
    Ok(map)
}

/// Every core takes some of the programs to the verifier.
fn load_programs(
    object: &Object,
    types: Option<&OwnedFd>,
) -> Result<Vec<(Hook, OwnedFd)>, KernelError> {
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(4);
    let mut loaded = thread::scope(|scope| {
        let worker = |first: usize| {
            let mine = Hook::ALL.iter().skip(first).step_by(workers);
            mine.map(|hook| Ok((*hook, load_program(object, types, *hook)?)))
                .collect::<Result<Vec<_>, _>>()
        };
        let running: Vec<_> =
            (1..workers).map(|first| scope.spawn(move || worker(first))).collect();
        let mut all = worker(0)?;
        for thread in running {
            all.extend(thread.join().map_err(|_| failed("a thread panicked"))??);
        }
        Ok::<_, KernelError>(all)
    })?;
    loaded.sort_by_key(|(hook, _)| *hook as u32);
    Ok(loaded)
}

fn load_program(
    object: &Object,
    types: Option<&OwnedFd>,
    hook: Hook,
) -> Result<OwnedFd, KernelError> {
    let missing = KernelError::Missing(hook.name());
    let Some(program) = object.programs.get(hook.name()) else { return Err(missing) };
    let Some(function) = object.functions.get(&program.function_key()) else { return Err(missing) };
    let (kind, expected_attach) = kind(hook);
    let records = function.func_info.func_info_bytes();
    let size = u32::try_from(function.func_info_rec_size).unwrap_or_default();
    let new = NewProgram {
        kind,
        expected_attach,
        name: hook.name(),
        license: &program.license,
        instructions: &function.instructions,
        functions: types.map(|t| Functions { types: t.as_fd(), records: &records, size }),
    };
    bpf::load_program(&new).map_err(|(source, log)| KernelError::Program {
        program: hook.name(),
        source,
        log,
    })
}

/// `enum bpf_prog_type` in include/uapi/linux/bpf.h, and the attach type that the verifier must
/// know already.
fn kind(hook: Hook) -> (u32, u32) {
    match hook {
        Hook::SockCreate | Hook::SockRelease => (9, attach_type(hook)),
        Hook::Connect4
        | Hook::Connect6
        | Hook::Sendmsg4
        | Hook::Sendmsg6
        | Hook::Recvmsg4
        | Hook::Recvmsg6
        | Hook::Getpeername4
        | Hook::Getpeername6
        | Hook::Bind4
        | Hook::Bind6 => (18, attach_type(hook)),
        Hook::SockOps => (13, 0),
        Hook::Egress => (8, attach_type(hook)),
    }
}

fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> KernelError {
    let error = error.into();
    match permission(&*error) {
        Some(source) => KernelError::NotPermitted(source),
        None => KernelError::Load(error),
    }
}

/// The EPERM or EACCES at the root of an error, if that is what it is.
fn permission(error: &(dyn Error + 'static)) -> Option<io::Error> {
    let mut next = Some(error);
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return Some(io.raw_os_error().map_or_else(
                || io::ErrorKind::PermissionDenied.into(),
                io::Error::from_raw_os_error,
            ));
        }
        next = e.source();
    }
    None
}
