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
use std::thread;

use agent_ebpf::abi::{Closed, Hook};
use aya::maps::MapData;
use aya_obj::{EbpfSectionKind, Object};
use nix::sys::resource::{Resource, setrlimit};

use super::ebpf::{KernelError, KernelOptions, attach_type};
use super::pins::{self, PinError, Pins};
use crate::sys::bpf::{self, Functions, NewProgram};
use crate::sys::bpf_object::{self, MapShape};

/// The programs, compiled from `agent-ebpf` and embedded.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/egret.bpf.o"));

/// Where the maps come from that a daemon pins; all others are made anew each time.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// Made, for as long as this process lives.
    Own,
    /// Made, and pinned.
    Pin(&'a Pins),
    /// Found where they were pinned. One that is not there is never made instead: the programs that
    /// are attached would not know it.
    Adopt(&'a Pins),
}

/// What the kernel holds for us.
pub(super) struct Loaded {
    pub(super) maps: HashMap<String, MapData>,
    /// In the order of [`Hook::ALL`].
    pub(super) programs: Vec<(Hook, OwnedFd)>,
    /// In the order of [`Closed::ALL`], or none: only what is pinned can be there before its agent.
    pub(super) closed: Vec<(Closed, OwnedFd)>,
}

/// Makes every map and loads every program.
pub(super) fn load(options: &KernelOptions, source: Source<'_>) -> Result<Loaded, KernelError> {
    // Before 5.11 maps counted against this limit; failing to raise it matters only there.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
    let mut object = Object::parse(OBJECT).map_err(failed)?;
    let types = load_types(&mut object)?;
    let maps = make_maps(&mut object, types.as_ref(), options, source)?;
    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let made = maps
        .iter()
        .map(|(name, data)| (name.as_str(), data.map.fd().as_fd().as_raw_fd(), &data.definition));
    object.relocate_maps(made, &sections).map_err(failed)?;
    object.relocate_calls(&sections).map_err(failed)?;
    object.sanitize_functions(aya::features());
    let closed: &[Closed] = if matches!(source, Source::Own) { &[] } else { Closed::ALL };
    let wanted: Vec<Wanted> = Hook::ALL
        .iter()
        .map(|hook| Wanted { name: hook.name(), hook: *hook })
        .chain(closed.iter().map(|c| Wanted { name: c.name(), hook: c.hook() }))
        .collect();
    let mut loaded = load_programs(&object, types.as_ref(), &wanted)?;
    let rest = loaded.split_off(Hook::ALL.len());
    let programs = Hook::ALL.iter().copied().zip(loaded).collect();
    let closed = closed.iter().copied().zip(rest).collect();
    let maps = maps.into_iter().map(|(name, made)| (name, made.map)).collect();
    Ok(Loaded { maps, programs, closed })
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
    source: Source<'_>,
) -> Result<HashMap<String, Made>, KernelError> {
    let mut made = HashMap::new();
    for (name, mut definition) in object.maps.drain() {
        if let ("FLOWS", Some(max)) = (name.as_str(), options.max_flows) {
            definition.set_max_entries(max);
        }
        let role = pins::ROLES.into_iter().find(|role| *role == name);
        let map = match (role, source) {
            (Some(role), Source::Adopt(pins)) => adopt_map(role, &definition, pins)?,
            (Some(role), Source::Pin(pins)) => {
                let map = make_map(role, &definition, types)?;
                let path = pins.map(role);
                bpf_object::pin(map.fd().as_fd(), &path).map_err(pins::at(&path))?;
                map
            }
            (None, _) | (_, Source::Own) => make_map(&name, &definition, types)?,
        };
        made.insert(name, Made { map, definition });
    }
    Ok(made)
}

fn make_map(
    name: &str,
    definition: &aya_obj::Map,
    types: Option<&OwnedFd>,
) -> Result<MapData, KernelError> {
    let types = types.map(OwnedFd::as_fd);
    let map = MapData::create(definition.clone(), name, types).map_err(failed)?;
    if !definition.data().is_empty() {
        bpf::map_fill(map.fd().as_fd(), definition.data()).map_err(failed)?;
    }
    if definition.section_kind() == EbpfSectionKind::Rodata {
        bpf::map_freeze(map.fd().as_fd()).map_err(failed)?;
    }
    Ok(map)
}

/// Opens a pinned map, which must be shaped as the object has it.
fn adopt_map(
    role: &'static str,
    definition: &aya_obj::Map,
    pins: &Pins,
) -> Result<MapData, KernelError> {
    let path = pins.map(role);
    let fd = bpf_object::open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => PinError::MissingMap { role, dir: pins.dir().into() },
        _ => PinError::Io { path, source },
    })?;
    let shape = bpf_object::map_shape(fd.as_fd())
        .map_err(|source| KernelError::Map { map: role, source })?;
    let expected = MapShape {
        kind: definition.map_type(),
        key_size: definition.key_size(),
        value_size: definition.value_size(),
    };
    if shape != expected {
        return Err(PinError::Layout { role }.into());
    }
    MapData::from_fd(fd).map_err(failed)
}

/// A program of the object, and the hook at which it stands.
#[derive(Clone, Copy)]
struct Wanted {
    name: &'static str,
    hook: Hook,
}

/// Every core takes some of the programs to the verifier.
fn load_programs(
    object: &Object,
    types: Option<&OwnedFd>,
    wanted: &[Wanted],
) -> Result<Vec<OwnedFd>, KernelError> {
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(4);
    let mut loaded = thread::scope(|scope| {
        let worker = |first: usize| {
            let mine = wanted.iter().enumerate().skip(first).step_by(workers);
            mine.map(|(i, program)| Ok((i, load_program(object, types, *program)?)))
                .collect::<Result<Vec<_>, KernelError>>()
        };
        let running: Vec<_> =
            (1..workers).map(|first| scope.spawn(move || worker(first))).collect();
        let mut all = worker(0)?;
        for thread in running {
            all.extend(thread.join().map_err(|_| failed("a thread panicked"))??);
        }
        Ok::<_, KernelError>(all)
    })?;
    loaded.sort_by_key(|(i, _)| *i);
    Ok(loaded.into_iter().map(|(_, fd)| fd).collect())
}

fn load_program(
    object: &Object,
    types: Option<&OwnedFd>,
    Wanted { name, hook }: Wanted,
) -> Result<OwnedFd, KernelError> {
    let missing = KernelError::Missing(name);
    let Some(program) = object.programs.get(name) else { return Err(missing) };
    let Some(function) = object.functions.get(&program.function_key()) else { return Err(missing) };
    let (kind, expected_attach) = kind(hook);
    let records = function.func_info.func_info_bytes();
    let size = u32::try_from(function.func_info_rec_size).unwrap_or_default();
    let new = NewProgram {
        kind,
        expected_attach,
        name,
        license: &program.license,
        instructions: &function.instructions,
        functions: types.map(|t| Functions { types: t.as_fd(), records: &records, size }),
    };
    bpf::load_program(&new).map_err(|(source, log)| KernelError::Program {
        program: name,
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
