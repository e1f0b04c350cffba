//! The layers around every native call, in order. Forwarded calls see none of
//! them: `forward::Observer` counts those.
//!
//! Called by: `assembly`.

use tower::ServiceBuilder;

use super::Native;
use crate::intake::IntakeLayer;
use crate::middleware::{self, CallLayer, CatchPanicLayer, DeadlineLayer, ObserveLayer};

/// Our own services as they are called.
pub(super) fn stack<S: middleware::Native + Sync>(services: S, intake: IntakeLayer<S>) -> Native {
    let service = ServiceBuilder::new()
        // Outermost: everything below names the call by its id.
        .layer(CallLayer)
        // Sees every outcome, deadlines and panics too.
        .layer(ObserveLayer)
        // Around the deadline, which would otherwise be skipped by unwinding.
        .layer(CatchPanicLayer)
        // What is timed is the service's own work, and receiving its message.
        .layer(DeadlineLayer)
        // Innermost: gives the services whole messages.
        .layer(intake)
        .service(services);
    Native::new(service)
}
