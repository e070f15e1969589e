//! A head that has come in, read: what it says is decided in [`intake`], and how its body will come is noted.

use super::Hall;
use super::upload::Upload;
use crate::exchange::Exchange;
use crate::snapshot::{Snapshot, intake};

pub(super) use crate::snapshot::intake::Refusal;

/// Makes of a head what the rest of the gateway reads.
pub(super) fn admit(
    hall: &Hall,
    view: &Snapshot,
    ex: &mut Exchange,
    upload: &mut Upload,
) -> Result<(), Refusal> {
    let ahead = intake::body_ahead(ex)?;
    upload.begin(ahead.framing, ex.request.line.head.end(), ahead.awaits_continue);
    intake::admit(&view.house, hall.core.limits.body_bytes_max, ex)?;
    match &ex.security {
        None => Ok(()),
        Some(security) => {
            let (request, now) = (&ex.request, ex.timing.received_at);
            view.certificates.admit(security, &request.host, &request.path, now)
        }
    }
}
