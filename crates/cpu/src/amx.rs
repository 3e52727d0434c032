//! AMX: detection and permission. The instructions are not stable intrinsics, so they are written
//! as `asm!`.

use std::sync::OnceLock;

/// Whether the processor has AMX tiles with bf16 products and the operating system lets this
/// process use them.
///
/// CPUID(7,0).EDX bits 22 (AMX-BF16) and 24 (AMX-TILE); OSXSAVE; XCR0 bits 17 and 18; then Linux
/// wants one `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)` per process.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(detect)
}

/// Whether tiles also take f16: `tdpfp16ps`, CPUID(7,1).EAX bit 21 (AMX-FP16). Means nothing unless
/// [`available`].
pub fn fp16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).eax >= 1 && __cpuid_count(7, 1).eax & (1 << 21) != 0
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn detect() -> bool {
    false
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn detect() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_int = 18;

    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: the caller checked OSXSAVE, so xgetbv with register 0 is defined.
        unsafe { _xgetbv(0) }
    }

    let osxsave = __cpuid(1).ecx & (1 << 27) != 0;
    if !osxsave || __cpuid(0).eax < 7 {
        return false;
    }
    let tiles = (1 << 22) | (1 << 24);
    if __cpuid_count(7, 0).edx & tiles != tiles {
        return false;
    }
    let state = (1 << 17) | (1 << 18);
    // SAFETY: OSXSAVE implies that the processor has the xsave family.
    if unsafe { xcr0() } & state != state {
        return false;
    }
    // SAFETY: arch_prctl with this request reads no memory of ours; it either grants the permission
    // or fails.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}
