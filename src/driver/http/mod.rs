//! The HTTP front: `tiny_http`, and the gate that stands between it and the network.
//!
//! ```text
//!   clients -- TCP --> gate (mio, httparse) -- N Unix connections --> tiny_http -- deliver --> application
//!           <--------                       <------------------------           <-- Responder --
//! ```
//!
//! `tiny_http` is not fit to face a network: it trusts lengths, has no time-outs and no caps. The gate reads every request
//! whole, within bounds, and passes on only a canonical form of it; see `gate`, `conn` and `head`. What a request means
//! is not known here. There is no TLS, no HTTP/2, no compression, and no streaming: bodies are held whole in memory,
//! under one budget for all.

mod backend;
mod chunked;
mod conn;
mod counts;
mod doors;
mod env;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod head;
mod lane;
mod lanes;
mod limits;
mod refusal;
mod reply;
mod slots;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tracing::error;

pub use crate::data::http::{HttpRequest, HttpResponse};
pub use backend::Responder;
pub use counts::Counts;
pub use doors::Doors;
pub use limits::{BodyLimit, HttpConfig};

use backend::{Backend, SocketDir, Work};
use gate::{Control, Gate};

/// Names one request that waits for its answer.
pub type Ticket = u64;

/// A bound HTTP front that does not serve yet.
pub struct HttpFront {
    config: HttpConfig,
    connections_max: usize,
    listener: std::net::TcpListener,
    local_addr: SocketAddr,
}

impl HttpFront {
    /// Binds the public address, so that one that is taken is an error before anything is started.
    ///
    /// # Errors
    /// The address cannot be bound, or the limit of open files leaves no room for connections.
    pub fn bind(config: HttpConfig) -> io::Result<HttpFront> {
        let connections_max = config.connection_cap()?;
        let listener = std::net::TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let local_addr = listener.local_addr()?;
        Ok(HttpFront { config, connections_max, listener, local_addr })
    }

    /// The address that clients reach, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What is refused is counted here.
    pub fn counts(&self) -> Counts {
        self.config.counts.clone()
    }

    /// The most public connections there will be at once.
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Starts serving. `deliver` is called on `tiny_http`'s receiving thread for each whole request and must not block;
    /// every ticket should be answered once through the responder that comes with it, or a clone of it, within the
    /// configured time.
    ///
    /// # Errors
    /// The Unix socket or a thread could not be made; nothing keeps running then.
    pub fn start(
        self,
        mut deliver: impl FnMut(Ticket, HttpRequest, &Responder) + Send + 'static,
    ) -> io::Result<HttpHandle> {
        let backend = Arc::new(Backend::new(SocketDir::create()?)?);
        let poll = mio::Poll::new()?;
        let control = Arc::new(Control::new(&poll)?);
        let listener = mio::net::TcpListener::from_std(self.listener);
        let (body_max, answer_timeout) = (self.config.max_value.get(), self.config.answer_timeout);
        // One request and one answer for each private connection, as many again that came too late, and the stop.
        let (sender, receiver) = crossbeam_channel::bounded(self.config.workers * 4 + 1);
        let gate = Gate::new(poll, listener, self.config, self.connections_max, backend.path())?;

        // From here on dropping the handle ends whatever has been started.
        let mut handle = HttpHandle {
            local_addr: self.local_addr,
            work: sender.clone(),
            control: Arc::clone(&control),
            backend: Arc::clone(&backend),
            gate: None,
            receiving: None,
            answering: None,
        };
        handle.answering = Some(spawn("http-answer", move || backend::answer(&receiver, answer_timeout))?);
        let gate_control = Arc::clone(&control);
        let responder = handle.responder();
        handle.receiving = Some(spawn("http-receive", move || {
            let deliver = |ticket, request| deliver(ticket, request, &responder);
            backend::receive(&backend, &control, body_max, &sender, deliver);
        })?);
        handle.gate = Some(spawn("http-gate", move || gate.run(&gate_control))?);
        Ok(handle)
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(limits::STACK).spawn(body)
}

/// A running HTTP front. Dropping it cuts off what is in progress; [`HttpHandle::stop`] lets it leave.
pub struct HttpHandle {
    local_addr: SocketAddr,
    work: Sender<Work>,
    control: Arc<Control>,
    backend: Arc<Backend>,
    gate: Option<JoinHandle<()>>,
    receiving: Option<JoinHandle<()>>,
    answering: Option<JoinHandle<()>>,
}

impl HttpHandle {
    /// The address that clients reach.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the application gives its answers.
    pub fn responder(&self) -> Responder {
        Responder::new(self.work.clone())
    }

    /// Passes a request on again that the application has put off, by an answer with the field
    /// [`PARK_FIELD`](crate::data::http::PARK_FIELD) and this number. It may come before that answer.
    pub fn resume(&self, parked: u64) {
        self.control.resume(parked);
    }

    /// Begins to stop and returns at once: no connection is accepted and no further request begun, and after `grace`
    /// what is in progress is cut off. For an application that answers on the thread that will call
    /// [`HttpHandle::stop`]: it goes on answering between the two.
    pub fn begin_stop(&self, grace: Duration) {
        self.control.stop(Instant::now() + grace);
    }

    /// Whether a stop that was begun has let the last connection go: [`HttpHandle::stop`] will not wait.
    pub fn is_quiet(&self) -> bool {
        self.gate.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Accepts no more, lets answers in progress leave for up to `grace`, ends the threads and removes the socket. The
    /// application must go on answering meanwhile. `tiny_http`'s own idle threads end by themselves some 5 s later.
    pub fn stop(mut self, grace: Duration) {
        self.shut_down(grace);
    }

    fn shut_down(&mut self, grace: Duration) {
        self.control.stop(Instant::now() + grace);
        join(self.gate.take());
        self.backend.stop();
        join(self.receiving.take());
        if self.answering.is_some() && self.work.send(Work::Stop).is_ok() {
            join(self.answering.take());
        }
    }
}

impl Drop for HttpHandle {
    fn drop(&mut self) {
        self.shut_down(Duration::ZERO);
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.join().is_err()
    {
        error!("a thread of the HTTP front panicked");
    }
}
