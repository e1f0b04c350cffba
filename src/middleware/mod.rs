//! What surrounds every native call: its id, its deadline, its panics, its log
//! event and its metrics. Tower layers over tonic's `Routes`, outermost first
//! [`CallLayer`], [`ObserveLayer`], [`CatchPanicLayer`], [`DeadlineLayer`]; the
//! order is written once, in `server`.
//!
//! Not for: forwarded calls, which nothing here may touch.
//! Called by: `server`.

mod answer;
mod call_id;
mod deadline;
mod methods;
mod observe;
mod panic;
mod series;
#[cfg(test)]
mod tests;

use std::convert::Infallible;

use http::{Request, Response};
use tonic::body::Body;
use tower::Service;

pub use call_id::{CallLayer, CallService, REQUEST_ID};
pub use deadline::{DeadlineLayer, DeadlineService};
pub use observe::{ObserveLayer, ObserveService};
pub use panic::{CatchPanicLayer, CatchPanicService};

/// A service of native calls, such as tonic's `Routes`: always ready, never an
/// error of its own.
pub trait Native:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<S> Native for S where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}
