//! What integration tests share: `mod support;` at the top of a test file.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test file uses another part"
)]
#![allow(
    unreachable_pub,
    clippy::missing_panics_doc,
    reason = "a module of each test program, not a library"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

pub mod dns_server;
pub mod log;
pub mod pod;
pub mod roles;
pub mod script;

/// A resolv.conf of the test's own; removed at the end.
pub struct ResolvConf(PathBuf);

impl ResolvConf {
    /// A path without a file.
    pub fn missing() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "resolv.conf-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        Self(std::env::temp_dir().join(name))
    }

    pub fn new(content: &str) -> Self {
        let file = Self::missing();
        file.write(content);
        file
    }

    pub fn write(&self, content: &str) {
        fs::write(&self.0, content).expect("the temporary directory is writable");
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        // Perhaps it was never written.
        let _ = fs::remove_file(&self.0);
    }
}

/// The seed of this test: from `HEADLESS_LB_SEED`, or drawn anew. Printed, so that it shows when the
/// test fails.
pub fn seed() -> u64 {
    let given = std::env::var("HEADLESS_LB_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(())
    });
    println!("HEADLESS_LB_SEED={seed}");
    seed
}
