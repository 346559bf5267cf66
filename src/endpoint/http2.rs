//! Makes HTTP/2 requests, and runs the tasks of HTTP/2 connections.

use bytes::Bytes;
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{Request, Uri, Version};
use hyper::rt::Executor;

use super::http1::RequestHead;

/// Makes a request to `endpoint`. HTTP/2 names the host in the request's pseudo-header fields instead of `Host`.
///
/// Source: RFC 9113 section 8.3.1.
pub(super) fn request<B>(head: &RequestHead<'_>, body: B, endpoint: &Uri) -> Request<B> {
    let mut request = Request::new(body);
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = head.method.clone();
    let mut uri = endpoint.clone().into_parts();
    // The caller's target was valid already.
    uri.path_and_query = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(head.target.as_bytes())).ok();
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    (head.lines)(&mut |name, value| {
        if *name != HOST {
            request.headers_mut().append(name, value.clone());
        }
    });
    request
}

/// Runs the tasks of HTTP/2 connections on the worker's own thread.
#[derive(Clone, Copy)]
pub(super) struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        // Ends with its connection, or with the worker.
        tokio::task::spawn_local(future);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    #[test]
    fn target_keeps_path_and_query_as_they_came() {
        let target = "/api/hubs/h%2F/:send?api-version=2022-11-01&excluded=a&excluded=b";
        let value = HeaderValue::from_static("east.example");
        let head =
            RequestHead { method: &Method::POST, target, lines: &|line| line(&HOST, &value), unwanted: |_| false };
        let request = request(&head, (), &Uri::from_static("https://east.example:8443"));
        assert_eq!(request.uri().to_string(), format!("https://east.example:8443{target}"));
        assert!(request.headers().is_empty() && request.method() == Method::POST);
    }
}
