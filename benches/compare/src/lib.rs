//! What the stub, the load client and the relay share: flags, a one-thread
//! executor, what the kernel says of a process, TLS, messages.
//!
//! Not for: Assetgate, which shares no code with what measures it.
//! Called by: the programs in `src/bin`.

pub mod args;
pub mod process;
pub mod tls;
pub mod wire;

/// Spawns hyper's tasks on the current thread.
#[derive(Clone)]
pub struct LocalExec;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExec {
    fn execute(&self, f: F) {
        tokio::task::spawn_local(f);
    }
}
