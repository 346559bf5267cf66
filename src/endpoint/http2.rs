//! Builds HTTP/2 requests and runs the tasks of HTTP/2 connections.

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{Request, Uri, Version};
use hyper::rt::Executor;

use super::http1::RequestHead;

/// Builds a request to `endpoint`. HTTP/2 has the pseudo-header field `:authority` instead of `Host`.
///
/// Source: RFC 9113 section 8.3.1.
pub(super) fn request<B>(head: &RequestHead<'_>, body: B, endpoint: &Uri) -> Request<B> {
    let mut request = Request::new(body);
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = head.method.clone();
    let mut uri = endpoint.clone().into_parts();
    // The target has been validated, so the conversion does not fail.
    uri.path_and_query = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(head.target.as_bytes())).ok();
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    (head.lines)(&mut |name, value| {
        if *name != HOST {
            request.headers_mut().append(name, value.clone());
        }
    });
    request
}

/// An executor that runs the tasks of HTTP/2 connections on the worker's own thread.
#[derive(Clone, Copy)]
pub(super) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        // The task ends with its connection or with the worker.
        tokio::task::spawn_local(future);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    #[test]
    fn target_has_the_path_and_query_of_the_call_unchanged() {
        let target = "/api/hubs/h%2F/:send?api-version=2022-11-01&excluded=a&excluded=b";
        let value = HeaderValue::from_static("east.example");
        let head =
            RequestHead { method: &Method::POST, target, lines: &|line| line(&HOST, &value), unwanted: |_| false };
        let request = request(&head, (), &Uri::from_static("https://east.example:8443"));
        assert_eq!(request.uri().to_string(), format!("https://east.example:8443{target}"));
        assert!(request.headers().is_empty() && request.method() == Method::POST);
    }
}
