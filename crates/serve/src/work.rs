//! Work that takes a processor a while, beside the requests of its thread.

use tokio::task::JoinError;

/// Bytes that are worked on where the request is.
const SHORT: usize = 64 << 10;

/// Whether work on so many bytes would keep other requests of this thread waiting.
pub(crate) fn is_long(bytes: usize) -> bool {
    bytes > SHORT
}

/// Does work here, or, if it is long, where it keeps no other request waiting.
pub(crate) async fn beside<T: Send + 'static>(
    long: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if long { tokio::task::spawn_blocking(work).await } else { Ok(work()) }
}
