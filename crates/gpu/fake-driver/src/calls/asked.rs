//! What is asked before a GPU is used.

// SAFETY of all that follows: arguments are as `cuda.h` asks for, which callers owe a driver.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, c_char, c_int, c_uint};

use super::kernels::SHARED_BYTES;
use super::{Needs, call, driver, give};
use crate::state::{self, ERRORS, State, Status};

driver! {
    Nothing fn cuInit(state, _flags: c_uint) {
        match state.settings.init {
            0 if state.visible().is_empty() => Err(state::NO_DEVICE),
            0 => {
                state.initialised = true;
                Ok(())
            }
            status => Err(status),
        }
    }
    Nothing fn cuDriverGetVersion(state, version: *mut c_int) {
        unsafe { give(version, state.settings.version) }
    }
    Driver fn cuDeviceGetCount(state, count: *mut c_int) {
        unsafe { give(count, state.visible().len() as c_int) }
    }
    Driver fn cuDeviceGet(state, device: *mut c_int, ordinal: c_int) {
        known(state, ordinal)?;
        unsafe { give(device, ordinal) }
    }
    Driver fn cuDeviceGetName(state, name: *mut c_char, bytes: c_int, device: c_int) {
        known(state, device)?;
        let text: Vec<u8> = state.settings.name.bytes().take(bytes as usize - 1).chain([0]).collect();
        unsafe { name.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len()) };
        Ok(())
    }
    Driver fn cuDeviceGetUuid_v2(state, uuid: *mut [u8; 16], device: c_int) {
        let number = known(state, device)?;
        let mut bytes = [0xfa; 16];
        bytes[15] = number as u8;
        unsafe { give(uuid, bytes) }
    }
    Driver fn cuDeviceTotalMem_v2(state, bytes: *mut usize, device: c_int) {
        known(state, device)?;
        unsafe { give(bytes, state.settings.memory) }
    }
    Driver fn cuDeviceGetAttribute(state, value: *mut c_int, attribute: c_uint, device: c_int) {
        known(state, device)?;
        let (major, minor) = state.settings.capability;
        let answer = match attribute {
            16 => 132,
            38 => 50 << 20,
            75 => major,
            76 => minor,
            97 => SHARED_BYTES,
            _ => return Err(state::INVALID_VALUE),
        };
        unsafe { give(value, answer) }
    }
}

fn known(state: &State, device: c_int) -> Result<u32, Status> {
    let visible = state.visible();
    visible.get(device as usize).copied().ok_or(state::INVALID_DEVICE)
}

/// Text that a name or the words of an error are given by; not logged, for it is no use of the
/// driver.
fn text(
    status: Status,
    place: *mut *const c_char,
    of: fn(&(Status, &'static CStr, &'static CStr)) -> &'static CStr,
) -> Status {
    match ERRORS.iter().find(|(s, ..)| *s == status) {
        Some(entry) => {
            // SAFETY: as `cuda.h` asks for.
            unsafe { place.write(of(entry).as_ptr()) };
            0
        }
        None => state::INVALID_VALUE,
    }
}

/// As `cuda.h` has it.
///
/// # Safety
/// As `cuda.h` has it.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn cuGetErrorName(status: Status, place: *mut *const c_char) -> Status {
    text(status, place, |entry| entry.1)
}

/// As `cuda.h` has it.
///
/// # Safety
/// As `cuda.h` has it.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn cuGetErrorString(status: Status, place: *mut *const c_char) -> Status {
    text(status, place, |entry| entry.2)
}
