//! Child processes that end with their owner, however a test ends.

use std::{
    env, fs,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::{Instant, sleep};

/// A server program, and the Debian package that has it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub name: &'static str,
    pub package: &'static str,
}

pub const DNSMASQ: Program = program("dnsmasq", "dnsmasq-base");
pub const KNOTC: Program = program("knotc", "knot");
pub const KNOTD: Program = program("knotd", "knot");
pub const NAMED: Program = program("named", "bind9");
pub const NGINX: Program = program("nginx", "nginx");
pub const UNBOUND: Program = program("unbound", "unbound");
const SETPRIV: Program = program("setpriv", "util-linux");

const fn program(name: &'static str, package: &'static str) -> Program {
    Program { name, package }
}

impl Program {
    /// Where it is. Debian keeps servers in `sbin`, which is not on everybody's `PATH`.
    ///
    /// # Panics
    ///
    /// When it is not installed: a test that needs it fails, it is not skipped.
    pub fn path(self) -> PathBuf {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
            .map(|folder| folder.join(self.name))
            .find(|file| file.is_file())
            .unwrap_or_else(|| {
                panic!(
                    "`{}` is missing: install the Debian package `{}`, or run `tests/run`, which does",
                    self.name, self.package
                )
            })
    }
}

/// A running server. Dropped: killed with its whole process group, and waited for.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` in `folder`, where its output goes to `<program>.log`.
    pub fn start<S: AsRef<std::ffi::OsStr>>(
        program: Program,
        arguments: impl IntoIterator<Item = S>,
        folder: &Path,
    ) -> Self {
        let log = folder.join(format!("{}.log", program.name));
        let output = File::create(&log).expect("the log file can be created");
        // setpriv: should the test process be killed, the server gets a SIGTERM instead of a life of its own.
        let child = Command::new(SETPRIV.path())
            .args(["--pdeathsig", "TERM", "--"])
            .arg(program.path())
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file handle can be copied"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.name));
        Self {
            name: program.name,
            child,
            log,
        }
    }

    /// Waits until `ready` holds.
    ///
    /// # Panics
    ///
    /// With the program's output, when it ends first or takes more than 10 seconds.
    pub async fn ready(&mut self, mut ready: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ready().await {
            if let Some(status) = self.exited() {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            if Instant::now() > deadline {
                panic!("{} is not ready after 10 s:\n{}", self.name, self.log());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a signal to the program itself.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child can be signalled");
    }

    /// Waits until the program has ended by itself.
    pub async fn ended(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.exited().is_none() {
            let late = Instant::now() > deadline;
            assert!(!late, "{} goes on after 10 s:\n{}", self.name, self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the program wrote so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group: nginx has workers. It may be gone already.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// An address of the loopback network that no other test uses, with a port that is free there for UDP and TCP.
pub fn free_address() -> SocketAddr {
    free_port(free_ip())
}

/// An address of the loopback network that no other test uses.
pub fn free_ip() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Relaxed).to_be_bytes();
    let host = u8::try_from(process::id() % 251 + 1).expect("a remainder below 252");
    Ipv4Addr::new(127, host, high, low)
}

/// A port of `ip` that is free for UDP and TCP.
pub fn free_port(ip: Ipv4Addr) -> SocketAddr {
    for _ in 0..20 {
        let tcp = TcpListener::bind((ip, 0)).expect("a port on the loopback network");
        let address = tcp.local_addr().expect("a bound socket has an address");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port of {ip} is free for UDP and TCP");
}
