//! Batches of entries as bodies of HTTP requests, one after the other over a connection that is kept.
//!
//! An answer of 400 and more is a failure. What the other side says in it is read, up to a bound, and forgotten.

use std::io;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::task::{JoinHandle, yield_now};

use crate::control::dial::{Stream, words};
use crate::link::lines::Post;

/// Longest answer after which the connection is kept.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Least status of an answer that is a failure.
const FAILURE: u16 = 400;
/// How often the runtime is given the chance to learn that a connection is over.
const LOOKS: usize = 2;

/// A connection to post over.
pub(super) struct Poster {
    post: Box<Post>,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Poster {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Poster {
    /// Speaks HTTP over a connection.
    ///
    /// # Errors
    /// When that is over already.
    pub(super) async fn over(stream: Box<dyn Stream>, post: Box<Post>) -> io::Result<Self> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| io::Error::other(words(&error)))?;
        let driver = tokio::spawn(async move {
            // What went wrong is told to who waits for the answer.
            let _ = connection.await;
        });
        Ok(Self { post, sender, driver })
    }

    /// Whether nothing more can be sent over it.
    pub(super) async fn is_over(&mut self) -> bool {
        for _ in 0..LOOKS {
            yield_now().await;
        }
        self.sender.is_closed() || self.sender.ready().await.is_err()
    }

    /// Sends a batch and waits for the answer.
    ///
    /// # Errors
    /// When there is no answer, or it tells of a failure.
    pub(super) async fn post(&mut self, bytes: Bytes) -> io::Result<()> {
        let post = &self.post;
        let mut request = Request::post(&*post.target)
            .header(HOST, &*post.authority)
            .header(USER_AGENT, concat!("ringway/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, post.content_type);
        if let Some(authorization) = &post.authorization {
            request = request.header(AUTHORIZATION, &**authorization);
        }
        // The library's words could show what authorizes.
        let request = request.body(Full::new(bytes)).map_err(|_| io::Error::other("not fit to be sent"))?;
        let answer = self.sender.send_request(request).await;
        let answer = answer.map_err(|error| io::Error::other(words(&error)))?;
        let status = answer.status().as_u16();
        if status >= FAILURE {
            return Err(io::Error::other(format!("it answered {status}")));
        }
        // It was taken. What is said beyond that is read for the sake of the connection, which else ends here.
        if Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.is_err() {
            self.driver.abort();
        }
        Ok(())
    }
}
