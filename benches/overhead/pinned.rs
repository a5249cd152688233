//! Clients and pods on a processor each: where the scheduler decides, a request takes 20 us or 50.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Error;

#[derive(Clone, Copy)]
pub(crate) enum Side {
    Client,
    Pods,
}

/// Binds this thread, and those that it will start, to the first or last processor it may use.
pub(crate) fn to(side: Side) -> Result<(), Error> {
    let allowed = sched_getaffinity(None)?;
    let mut processors = (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor));
    let own = match side {
        Side::Client => processors.next(),
        Side::Pods => processors.next_back(),
    };
    let mut set = CpuSet::new();
    set.set(own.ok_or("no processor to run on")?);
    sched_setaffinity(None, &set)?;
    Ok(())
}
