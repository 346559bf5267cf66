//! Why a request is not a SignalR REST call.

/// Why a request is not a SignalR REST call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCallError {
    /// No operation has a path of this shape.
    #[error("the path is not part of the SignalR REST API")]
    UnknownPath,
    /// App servers connect to this path of the service.
    #[error("app servers connect to the SignalR endpoint itself; the gateway takes the REST API alone")]
    AppServerPath,
    /// Clients connect to this path of the service.
    #[error("clients connect to the SignalR endpoint itself; the gateway takes the REST API alone")]
    ClientPath,
    /// A segment has the form of an operation that is not known.
    #[error("`{segment}` is not an operation that this gateway knows; if it is a name, percent-encode its colon (%3A)")]
    UnknownOperation {
        /// The segment; cut if it is long.
        segment: Box<str>,
    },
    /// The path belongs to an operation, but not with this method.
    #[error("this path supports only {allowed}")]
    WrongMethod {
        /// The methods that the path supports, as in an `Allow` header.
        allowed: &'static str,
    },
    /// The path has the shape of an operation, but a part of it is not valid.
    #[error("{0}")]
    Malformed(&'static str),
}
