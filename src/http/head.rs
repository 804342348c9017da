//! What may come before a request's body: how long its URI, how many header fields, how large.
//!
//! hyper has bounds as well, a little beyond these; what exceeds them it answers by itself, without a body: 431, and over
//! HTTP/2 a reset of the stream.

use http::{HeaderMap, Uri};

use super::problem::Problem;

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadBounds {
    /// Of the path and its query.
    pub(super) max_uri_bytes: usize,
    pub(super) max_headers: usize,
    /// Of all names and values.
    pub(super) max_header_bytes: usize,
}

impl HeadBounds {
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let uri_bytes = uri.path_and_query().map_or(0, |path| path.as_str().len());
        if uri_bytes > self.max_uri_bytes {
            return Err(Problem::uri_too_long(self.max_uri_bytes));
        }
        if headers.len() > self.max_headers {
            let detail = format!("at most {} fields are taken", self.max_headers);
            return Err(Problem::header_too_large(self.max_headers).with_detail(detail));
        }
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > self.max_header_bytes {
            let detail = format!("at most {} bytes of names and values are taken", self.max_header_bytes);
            return Err(Problem::header_too_large(self.max_header_bytes).with_detail(detail));
        }
        Ok(())
    }
}
