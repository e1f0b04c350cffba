//! The program under test, as a process of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Mutex;

use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::ClientTlsConfig;

use super::admin::{self, Metrics};
use super::logs::Lines;
use super::{Client, Upstream, eventually};

/// How to start it.
pub struct Proxy {
    listen: OsString,
    admin: OsString,
    args: Vec<OsString>,
    config: Option<String>,
    data: Option<PathBuf>,
    home: bool,
    core_dumps: bool,
    group: Option<u32>,
    origins: bool,
    probing: bool,
    log_format: &'static str,
    log_level: &'static str,
    variables: Vec<(&'static str, &'static str)>,
    descriptors: Option<u32>,
    unread_logs: bool,
}

impl Proxy {
    pub fn new() -> Self {
        Self {
            listen: "127.0.0.1:0".into(),
            admin: "127.0.0.1:0".into(),
            args: Vec::new(),
            config: None,
            data: None,
            home: true,
            core_dumps: true,
            group: None,
            origins: true,
            probing: false,
            log_format: "json",
            log_level: "info",
            variables: Vec::new(),
            descriptors: None,
            unread_logs: false,
        }
    }

    /// In front of the test's own cache instead of the embedded one.
    pub fn upstream(self, cache: &Upstream) -> Self {
        self.upstream_at(&cache.url())
    }

    pub fn upstream_at(self, url: &str) -> Self {
        self.arg("--upstream").arg(url)
    }

    pub fn listen(mut self, address: impl Into<OsString>) -> Self {
        self.listen = address.into();
        self
    }

    pub fn admin(mut self, address: impl Into<OsString>) -> Self {
        self.admin = address.into();
        self
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// A configuration file with this text.
    pub fn config(mut self, toml: impl Into<String>) -> Self {
        self.config = Some(toml.into());
        self
    }

    /// The authority origins are trusted by.
    pub fn origin_ca(self, file: &Path) -> Self {
        self.arg("--origin-ca").arg(file)
    }

    /// A data directory that outlives the process.
    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data = Some(dir.to_owned());
        self
    }

    /// As a service without a home that was told of no data directory.
    pub fn without_home(mut self) -> Self {
        self.home = false;
        self
    }

    /// As it is shipped. The files of a process without core dumps belong to
    /// root, so that tests could not look into it.
    pub fn without_core_dumps(mut self) -> Self {
        self.core_dumps = false;
        self
    }

    /// As a process of this group.
    pub fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    pub fn log_level(mut self, level: &'static str) -> Self {
        self.log_level = level;
        self
    }

    /// With an environment variable.
    pub fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// With so many file descriptors, which it cannot raise.
    pub fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// With logs into a pipe that nobody reads.
    pub fn unread_logs(mut self) -> Self {
        self.unread_logs = true;
        self
    }

    /// Finds out what the cache does. Others leave it, as what they count are
    /// the calls of one request.
    pub fn probing(mut self) -> Self {
        self.probing = true;
        self
    }

    /// As on a terminal.
    pub fn text_logs(mut self) -> Self {
        self.log_format = "text";
        self
    }

    /// Without leave to fetch from loopback addresses.
    pub fn public_origins_only(mut self) -> Self {
        self.origins = false;
        self
    }

    /// Reaches origins through this proxy.
    pub fn origin_proxy(self, url: &str) -> Self {
        self.arg("--origin-proxy").arg(url)
    }

    fn spawn(&self, dir: &Path) -> Spawned {
        let program = env!("CARGO_BIN_EXE_assetgate");
        let mut command = match self.descriptors {
            None => Command::new(program),
            Some(limit) => {
                let mut shell = Command::new("/bin/sh");
                let limited = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
                shell.args(["-c", &limited, program]);
                shell
            }
        };
        command.env_clear().env("TMPDIR", dir);
        // Origins of tests recover at once or never.
        command.env("ASSETGATE__FETCH__RETRY_DELAY", "10ms");
        command.envs(self.variables.iter().copied());
        command
            .arg("serve")
            .args(["--listen".into(), self.listen.clone()]);
        command.args(["--admin-listen".into(), self.admin.clone()]);
        if self.home {
            let data = self.data.clone().unwrap_or_else(|| dir.join("data"));
            command.env("HOME", dir).arg("--data-dir").arg(data);
        }
        command.arg("--port-file").arg(dir.join("ports.json"));
        command.args([
            "--log-format",
            self.log_format,
            "--log-level",
            self.log_level,
        ]);
        if let Some(group) = self.group {
            std::os::unix::process::CommandExt::gid(&mut command, group);
        }
        if self.core_dumps {
            command.env("ASSETGATE__CORE_DUMPS", "true");
        }
        if !self.probing {
            command.env("ASSETGATE__PROBE__ENABLED", "false");
        }
        if self.origins {
            command.args(["--origin-allow-cidr", "127.0.0.0/8"]);
        }
        if let Some(toml) = &self.config {
            std::fs::write(dir.join("assetgate.toml"), toml).unwrap();
            command.arg("--config").arg(dir.join("assetgate.toml"));
        }
        command.args(&self.args);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (stderr, unread) = if self.unread_logs {
            (Lines::default(), Some(stderr))
        } else {
            (Lines::of(stderr), None)
        };
        Spawned {
            stdout: Lines::of(child.stdout.take().unwrap()),
            stderr,
            unread: Mutex::new(unread),
            child: Mutex::new(child),
        }
    }

    /// Starts it and waits until it serves.
    pub async fn start(self) -> Running {
        let dir = TempDir::new().unwrap();
        let process = self.spawn(dir.path());
        let file = dir.path().join("ports.json");
        let ports = eventually("the port file", async || {
            if let Some(status) = process.exited() {
                panic!(
                    "ended with {status} before serving: {}",
                    process.stderr.text()
                );
            }
            serde_json::from_str::<Value>(&std::fs::read_to_string(&file).ok()?).ok()
        })
        .await;
        Running {
            process,
            _dir: dir,
            ports,
        }
    }

    /// Starts it, and a client of it.
    pub async fn connected(self) -> (Running, Client) {
        let running = self.start().await;
        let client = running.client().await;
        (running, client)
    }

    /// Starts it and waits until it ends by itself.
    pub async fn start_to_end(self) -> (ExitStatus, String) {
        let dir = TempDir::new().unwrap();
        let process = self.spawn(dir.path());
        let status = eventually("the end of the program", async || process.exited()).await;
        let printed = eventually("its message", async || {
            Some(process.stderr.text()).filter(|text| !text.is_empty())
        });
        (status, printed.await)
    }
}

struct Spawned {
    child: Mutex<Child>,
    unread: Mutex<Option<ChildStderr>>,
    stdout: Lines,
    stderr: Lines,
}

impl Spawned {
    fn exited(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        child.kill().ok();
        child.wait().ok();
    }
}

/// A serving process; killed when dropped.
pub struct Running {
    process: Spawned,
    _dir: TempDir,
    ports: Value,
}

impl Running {
    /// What the port file says.
    pub fn ports(&self) -> &Value {
        &self.ports
    }

    pub fn address(&self) -> SocketAddr {
        self.ports["grpc"].as_str().unwrap().parse().unwrap()
    }

    pub fn admin(&self) -> SocketAddr {
        self.ports["admin"].as_str().unwrap().parse().unwrap()
    }

    /// A client with a connection of its own.
    pub async fn client(&self) -> Client {
        Client::connect(&format!("http://{}", self.address())).await
    }

    pub async fn tls_client(
        &self,
        tls: ClientTlsConfig,
    ) -> Result<Client, tonic::transport::Error> {
        Client::connect_tls(&format!("https://{}", self.address()), tls).await
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics(admin::get(self.admin(), "/metrics").await.1)
    }

    pub fn stdout(&self) -> &Lines {
        &self.process.stdout
    }

    pub fn stderr(&self) -> &Lines {
        &self.process.stderr
    }

    /// Reads the logs from now on that nobody read so far.
    pub fn read_logs(&self) -> Lines {
        Lines::of(self.process.unread.lock().unwrap().take().unwrap())
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes.
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Processor time it has used, in clock ticks of usually 10 ms.
    pub fn ticks(&self) -> u64 {
        let pid = self.process.child.lock().unwrap().id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name, which is in parentheses: `utime` and `stime`.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let times = fields.skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    fn memory(&self, what: &str) -> u64 {
        let pid = self.process.child.lock().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|l| l.starts_with(what)).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// What stands in the files it has open, deleted ones too.
    pub fn open_files(&self) -> Vec<Vec<u8>> {
        let pid = self.process.child.lock().unwrap().id();
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let paths = open.map(|entry| entry.unwrap().path());
        let files = paths.filter(|path| std::fs::metadata(path).is_ok_and(|m| m.is_file()));
        files.filter_map(|path| std::fs::read(path).ok()).collect()
    }

    /// How many file descriptors are open.
    pub fn descriptors(&self) -> usize {
        let pid = self.process.child.lock().unwrap().id();
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    }

    /// The group that what the system shows about it belongs to.
    pub fn group_of_status(&self) -> u32 {
        use std::os::unix::fs::MetadataExt as _;
        let pid = self.process.child.lock().unwrap().id();
        let status = std::fs::metadata(format!("/proc/{pid}/status"));
        status.unwrap().gid()
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Stops it where it is, as a machine does that is busy with others, until
    /// it is let go on.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on after a pause.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let child = self.process.child.lock().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.process.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&self) -> ExitStatus {
        eventually("the end of the program", async || self.process.exited()).await
    }

    pub fn has_ended(&self) -> bool {
        self.process.exited().is_some()
    }
}
