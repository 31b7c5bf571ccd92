//! Messages of tasks that may wait for room in a mailbox.

use crate::worker::mesh::Mailbox;

/// Puts a message into a mailbox, once there is room.
pub async fn deliver<T>(mailbox: &Mailbox<T>, mut message: T) {
    while let Err(back) = mailbox.push(message) {
        message = back;
        tokio::task::yield_now().await;
    }
}
