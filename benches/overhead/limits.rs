//! What the library holds itself to, where it promises something.

/// Of a ratio to the client of one fixed pod.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) below: f64,
    pub(crate) aim: f64,
}

/// CPU time per request.
pub(crate) fn cpu(name: &str, concurrency: u32) -> Option<Limit> {
    // One request at a time measures how the machine wakes up. Over HTTP/2 the limit is not met: requests to
    // one pod share reads and writes that those to several pods cannot share.
    let promised = is_balanced(name) && concurrency > 1;
    promised.then_some(Limit {
        below: 1.0,
        aim: 0.85,
    })
}

/// Instructions per request.
pub(crate) fn instructions(name: &str) -> Option<Limit> {
    is_balanced(name).then_some(Limit {
        below: 1.0,
        aim: 0.75,
    })
}

fn is_balanced(name: &str) -> bool {
    name.starts_with("balanced")
}
