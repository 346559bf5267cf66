//! Closed enums whose values label metrics. Callers cannot add values, so the number of series is bounded.

/// Declares an enum with a label for each variant.
macro_rules! label_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}
pub(crate) use label_enum;

label_enum! {
    /// Why the gateway itself responded to a request with an error. Also sent in the header `signalr-gateway-error`.
    ErrorKind {
        /// The request is not well-formed, or a name, continuation token or `Idempotency-Key` in it is not valid.
        Malformed = "malformed",
        /// The `Idempotency-Key` belongs to another call.
        KeyReused = "key_reused",
        /// A call with the same `Idempotency-Key` is in progress.
        KeyInUse = "key_in_use",
        /// An earlier call with the same `Idempotency-Key` may have been received, and its outcome is unknown.
        OutcomeUnknown = "outcome_unknown",
        /// The shared idempotency store is out.
        StoreUnavailable = "store_unavailable",
        /// `Host` is not one of the allowed names.
        HostNotAllowed = "host_not_allowed",
        /// The request has an `Origin` header, or its `Sec-Fetch-Site` names another origin.
        OriginNotAllowed = "origin_not_allowed",
        /// The caller's address is in none of the allowed networks.
        ClientNotAllowed = "client_not_allowed",
        /// The listener does not allow the operation.
        OperationNotAllowed = "operation_not_allowed",
        /// The configuration does not let the caller that the certificate identifies send the call.
        CallerNotAllowed = "caller_not_allowed",
        /// The call needs a certificate of its caller, and there is none.
        CertificateRequired = "certificate_required",
        /// The path is not part of the SignalR REST API.
        UnknownPath = "unknown_path",
        /// No route matches the call.
        NoRoute = "no_route",
        /// The call names an endpoint that does not exist or that its route does not let calls name.
        NoEndpoint = "no_endpoint",
        /// No endpoint that the call could be sent to is in use.
        EndpointDisabled = "endpoint_disabled",
        /// The path does not support the method.
        MethodNotAllowed = "method_not_allowed",
        /// The caller sent the request too slowly.
        SlowRequest = "slow_request",
        /// The header that the listener requires is missing.
        HeaderRequired = "header_required",
        /// The caller stopped before the end of the body.
        BodyBroken = "body_broken",
        /// The body is larger than `limits.max_body`.
        BodyTooLarge = "body_too_large",
        /// The head is larger than `limits.max_header` or has too many header lines.
        HeadersTooLarge = "headers_too_large",
        /// The endpoint gave no complete, readable response, or a fan-out was inconclusive.
        UpstreamBroken = "upstream_broken",
        /// Some endpoints of a fan-out accepted the call, others did not.
        PartialDelivery = "partial_delivery",
        /// Several endpoints of a fan-out have a connection that only one may have.
        SeveralOwners = "several_owners",
        /// There is no valid token for the endpoint.
        TokenUnavailable = "token_unavailable",
        /// No endpoint of the route processed the call, or all their circuits are open.
        EndpointUnavailable = "endpoint_unavailable",
        /// A concurrency limit is reached, or memory for bodies or a resource of the host is exhausted.
        Overload = "overload",
        /// A rate limit is exceeded.
        RateLimited = "rate_limited",
        /// The listener is closed, because the gateway is stopping or its configuration changed.
        Draining = "draining",
        /// The endpoint did not respond within the deadline.
        Deadline = "deadline",
        /// An error of the gateway itself.
        Internal = "internal",
    }
}

label_enum! {
    /// Why an attempt at an endpoint failed.
    UpstreamErrorReason {
        /// Name resolution of the endpoint failed, or did not finish within `resolve_timeout`.
        Dns = "dns",
        /// The endpoint refused the connection or was unreachable.
        Connect = "connect",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The proxy of the endpoint refused a tunnel or was unreachable.
        Proxy = "proxy",
        /// Connecting took longer than `connect_timeout`.
        ConnectTimeout = "timeout_connect",
        /// The head of the response took longer than `timeouts.try`.
        TryTimeout = "timeout_try",
        /// The deadline of the request passed.
        RequestTimeout = "timeout_total",
        /// The connection ended before the request was processed: nothing was written, or the endpoint states it.
        ResetBeforeSend = "reset_before_send",
        /// The connection ended after part of the request was written.
        ResetAfterSend = "reset_after_send",
        /// This host ran out of file descriptors or memory.
        Local = "local",
        /// The endpoint sent a response that is not valid HTTP.
        Protocol = "protocol",
        /// The response body ended early or was too long.
        Body = "body",
    }
}

label_enum! {
    /// What happened to a call that found a concurrency limit reached.
    QueueOutcome {
        /// It was admitted within the time it may wait.
        Entered = "entered",
        /// It waited and was not admitted in time.
        TimedOut = "timed_out",
        /// The queue was full.
        Full = "full",
    }
}

label_enum! {
    /// A decision about sending a failed request again.
    RetryOutcome {
        /// Sent again.
        Retried = "retried",
        /// Not sent: the retry budget of the endpoint is used up.
        Budget = "budget",
        /// Not sent: the endpoint may have received the request.
        NotSafe = "not_safe",
        /// Not sent: the deadline left no time.
        Deadline = "deadline",
    }
}

label_enum! {
    /// How the part of a call to several endpoints ended at one of them. Also named in the response of a partial delivery.
    FanOutOutcome {
        /// The endpoint accepted the call.
        Accepted = "accepted",
        /// The endpoint answered that the target does not exist.
        NotFound = "not_there",
        /// The endpoint throttled the call.
        Throttled = "throttled",
        /// The endpoint refused the call.
        Refused = "refused",
        /// The endpoint did not answer, and may have received the call.
        NoResponse = "no_answer",
        /// The endpoint did not process the call.
        NotSent = "not_sent",
    }
}

label_enum! {
    /// An operation of the shared idempotency store.
    StoreOperation {
        /// Claiming a key.
        Claim = "claim",
        /// Marking a call as sent.
        Send = "send",
        /// Recording an outcome, or giving a claim back.
        Record = "record",
    }
}

label_enum! {
    /// What was done with the token after an upstream 401 or 403.
    UnauthorizedAction {
        /// The token was discarded and another was obtained.
        Replaced = "replaced",
        /// The token was kept.
        Kept = "kept",
    }
}

label_enum! {
    /// Why the headers of a trusted proxy do not show the address of the caller.
    AddressProblem {
        /// `Forwarded` or `X-Forwarded-For` does not follow its syntax.
        Malformed = "malformed",
        /// `Forwarded` and `X-Forwarded-For` differ.
        Conflicting = "conflicting",
        /// The proxy does not name the caller.
        Unknown = "unknown",
    }
}

label_enum! {
    /// Why a connection to a listener with the PROXY protocol was refused.
    ProxyProtocolError {
        /// The peer is not a trusted proxy.
        Untrusted = "untrusted",
        /// The connection does not begin with a header.
        Missing = "missing",
        /// The header does not follow the protocol, or is too long.
        Malformed = "malformed",
        /// The header did not arrive in time.
        Timeout = "timeout",
    }
}

label_enum! {
    /// The state of an endpoint's circuit breaker.
    BreakerState {
        /// Calls go to the endpoint.
        Closed = "closed",
        /// Calls go elsewhere.
        Open = "open",
        /// One trial call decides whether the circuit closes.
        HalfOpen = "half_open",
    }
}

label_enum! {
    /// The state of a pooled connection.
    ConnectionState {
        /// It carries a request.
        Active = "active",
        /// It waits for a request.
        Idle = "idle",
    }
}

label_enum! {
    /// Why the gateway closed a connection of a caller.
    CallerCloseReason {
        /// It reached `timeouts.connection_age`.
        Age = "age",
        /// It was idle for `timeouts.idle`, or sent the head of a request too slowly.
        Idle = "idle",
        /// The caller did not read a response for `timeouts.write`.
        Unread = "unread",
        /// The CAs or revocation lists by which its caller was verified were replaced.
        Trust = "trust",
    }
}

label_enum! {
    /// Why the gateway closed a connection to an endpoint that could have carried another request.
    UpstreamCloseReason {
        /// It reached `pool.max_age`.
        Age = "age",
        /// It was idle for `pool.idle_timeout`.
        Idle = "idle",
        /// `limits.max_idle_connections` was reached.
        Limit = "limit",
        /// `pool.max_idle_per_worker` was reached.
        PoolLimit = "pool_limit",
    }
}

label_enum! {
    /// Why the certificate of a caller, or its absence, ended a TLS handshake.
    TlsRefusal {
        /// The caller sent no certificate.
        NoCertificate = "no_certificate",
        /// None of the CAs in `client_ca` has issued it.
        UnknownCa = "unknown_ca",
        /// It, or a CA between it and the one in `client_ca`, has expired.
        Expired = "expired",
        /// It is not valid yet.
        NotYetValid = "not_yet_valid",
        /// A revocation list in `client_crl` names it.
        Revoked = "revoked",
        /// No revocation list in `client_crl` covers it.
        RevocationUnknown = "revocation_unknown",
        /// The revocation list that covers it has expired.
        CrlExpired = "crl_expired",
        /// It identifies no caller.
        NoIdentity = "no_identity",
        /// It is invalid for another reason, such as its purpose or its signature.
        Invalid = "invalid",
    }
}

label_enum! {
    /// The stage of a token acquisition.
    TokenStage {
        /// Obtaining the client assertion (managed identity, file, external identity provider).
        Assertion = "assertion",
        /// Obtaining the endpoint's token.
        Exchange = "exchange",
    }
}

label_enum! {
    /// How a token request ended.
    TokenOutcome {
        /// It returned a usable token.
        Ok = "ok",
        /// It failed, but may succeed later without a change.
        Transient = "transient",
        /// It was rejected and will be until somebody changes the setup.
        Permanent = "permanent",
    }
}

label_enum! {
    /// Why a token request failed.
    TokenErrorReason {
        /// The secret, certificate or assertion was rejected.
        InvalidClient = "invalid_client",
        /// The assertion was outside its time window.
        AssertionExpired = "assertion_expired",
        /// The app is unknown to the tenant, or the tenant to the cloud.
        UnknownApp = "unknown_app",
        /// The federated credential, resource or policy does not allow it.
        Refused = "refused",
        /// The identity endpoint received too many requests.
        Throttled = "throttled",
        /// The proxy of the credential refused a tunnel or was unreachable.
        Proxy = "proxy",
        /// No response, or a 5xx: name resolution, connection, TLS, timeout.
        Network = "network",
        /// The response is not a valid token response.
        Malformed = "malformed",
        /// A secret, certificate or assertion on this host could not be read or used.
        Local = "local",
        /// Anything else.
        Other = "other",
    }
}

/// The statuses that have a label of their own; any other is `_other`.
const CODES: [(u16, &str); 30] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (301, "301"),
    (302, "302"),
    (304, "304"),
    (307, "307"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (411, "411"),
    (412, "412"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (431, "431"),
    // nginx's status for a caller that closed its connection before the response.
    (499, "499"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

/// The number of different status labels.
pub(super) const CODE_COUNT: usize = CODES.len() + 1;

/// Returns the index of a status among the labels.
pub(super) fn code_index(code: u16) -> usize {
    CODES.binary_search_by_key(&code, |(known, _)| *known).unwrap_or(CODES.len())
}

/// Returns the label of a status.
pub(super) fn code_label(code: u16) -> &'static str {
    CODES.get(code_index(code)).map_or("_other", |(_, label)| label)
}
