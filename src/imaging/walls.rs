//! What an imaging process gives up before it reads the first picture.

#[cfg(not(target_os = "linux"))]
use super::frames::Walls;
use super::inside::Bounds;

#[cfg(target_os = "linux")]
pub(super) use self::linux::raise;

/// Other systems have none of these.
#[cfg(not(target_os = "linux"))]
pub(super) fn raise(_: &Bounds) -> Walls {
    Walls { limits: false, system_calls: false, ends_with_the_service: false }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;

    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };

    use super::Bounds;
    use crate::imaging::frames::Walls;

    /// What remains: memory, the clock, chance, and an end. All else fails with EPERM, rather than killing, so that a
    /// library that merely asks (how many processors, a name for a mapping) goes on without an answer.
    const ALLOWED: [libc::c_long; 25] = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_getrusage,
        libc::SYS_madvise,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_sigaltstack,
        libc::SYS_tgkill,
        libc::SYS_uname,
    ];

    pub(in crate::imaging) fn raise(bounds: &Bounds) -> Walls {
        // When memory runs out in spite of all, the kernel is to take this process and not the service.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        let ends_with_the_service = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
        let limits = limit(bounds).is_ok();
        let system_calls = filter().is_some_and(|program| seccompiler::apply_filter(&program).is_ok());
        Walls { limits, system_calls, ends_with_the_service }
    }

    fn limit(bounds: &Bounds) -> rustix::io::Result<()> {
        let most = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
        most(Resource::Data, bounds.memory)?;
        most(Resource::Cpu, bounds.cpu_seconds)?;
        // The three pipes.
        most(Resource::Nofile, 3)?;
        most(Resource::Fsize, 0)?;
        most(Resource::Core, 0)
    }

    /// Applying it sets `no_new_privs` first, without which it may not be.
    fn filter() -> Option<BpfProgram> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.map(|call| (call, Vec::new())).into();
        let when = |argument, comparison, value| {
            let condition =
                SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value).ok()?;
            SeccompRule::new(vec![condition]).ok()
        };
        // The pipes alone, and memory alone: whatever else is open, because it was inherited, is of no use.
        let on = |pipe| when(0, SeccompCmpOp::Eq, pipe);
        let anonymous = u64::from(libc::MAP_ANONYMOUS.unsigned_abs());
        rules.insert(libc::SYS_read, vec![on(0)?]);
        rules.insert(libc::SYS_write, vec![on(1)?, on(2)?]);
        rules.insert(libc::SYS_mmap, vec![when(3, SeccompCmpOp::MaskedEq(anonymous), anonymous)?]);
        let arch = std::env::consts::ARCH.try_into().ok()?;
        let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        SeccompFilter::new(rules, refused, SeccompAction::Allow, arch).ok()?.try_into().ok()
    }
}
