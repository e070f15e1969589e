//! Receiving and sending in small futures, for connections that are silent for long: tunnels and streams.

use std::future::Future;
use std::io;

use monoio::io::{AsyncReadRent as _, AsyncWriteRent as _};

use super::{Caught, Layer, OPEN, Reader, Sending, Writer, readable, send};
use crate::runtime::buffers::Buffers;
use crate::runtime::{sys, tls};

impl Reader {
    /// [`Self::receive`] for who may wait for long, in a small future. Into `buffer`, which is empty, only where the system fills
    /// it; else nothing is held meanwhile, and what comes is in one that is lent then.
    // Not an `async fn`: that would hold its arguments twice, and of this each tunnel has two.
    #[allow(clippy::manual_async_fn)]
    pub fn receive_at_rest(&mut self, buffer: Vec<u8>, stock: &Buffers) -> impl Future<Output = Caught> {
        async move {
            match self.layer.as_deref() {
                // All of its room: a slice of it would be larger, twice.
                None => {
                    debug_assert!(buffer.is_empty() && buffer.capacity() > 0, "a receive needs room");
                    self.half.as_mut().expect(OPEN).read(buffer).await
                }
                Some(Layer::Tls(tls)) => {
                    let half = self.half.as_ref().expect(OPEN);
                    loop {
                        if let Some(caught) = tls.receive_now(half, stock) {
                            break caught;
                        }
                        tls.rest();
                        // How it broke is told by what follows.
                        let _ = readable(half).await;
                    }
                }
                Some(Layer::Pipe(pipe)) => {
                    pipe.readable().await;
                    let mut buffer = stock.small();
                    let count = pipe.take_now(&mut buffer);
                    (Ok(count), buffer)
                }
            }
        }
    }
}

impl Writer {
    /// Sends all of the buffer in a small future: at once, which mostly is all.
    // Not an `async fn`: as above.
    #[allow(clippy::manual_async_fn)]
    pub fn send_at_rest(
        &mut self,
        buffer: Vec<u8>,
        how: Sending,
    ) -> impl Future<Output = (io::Result<()>, Vec<u8>)> {
        async move {
            match self.layer.as_deref() {
                None => {
                    let half = self.half.as_mut().expect(OPEN);
                    let (sent, buffer) = match how {
                        // What is left, or wrong, is for the ring to find.
                        Sending::Alone => (Ok(sys::send_now(half, &buffer)), buffer),
                        Sending::Together => half.write(buffer).await,
                    };
                    match sent {
                        Ok(all) if all == buffer.len() => (Ok(()), buffer),
                        Ok(part) => Box::pin(send(half, buffer, part, Sending::Together)).await,
                        Err(error) => (Err(error), buffer),
                    }
                }
                Some(Layer::Tls(tls)) => {
                    let half = self.half.as_mut().expect(OPEN);
                    Box::pin(tls::send(tls, half, buffer, 0, how)).await
                }
                Some(Layer::Pipe(pipe)) => pipe.send(buffer, 0).await,
            }
        }
    }
}
