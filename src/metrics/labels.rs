//! The closed enums whose names label metrics. Each is a short list on purpose: callers cannot add to it.

/// Declares an enum whose variants have a label each.
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

label_enum! {
    /// Why the gateway answered a request itself with an error. Also the value of the `signalr-gateway-error` header.
    ErrorKind {
        /// The request is not well-formed HTTP or names something that cannot be.
        Malformed = "malformed",
        /// `Host` is not one of the allowed names.
        HostNotAllowed = "host_not_allowed",
        /// A browser page of another origin sent it.
        OriginNotAllowed = "origin_not_allowed",
        /// The caller's address is in none of the allowed networks.
        ClientNotAllowed = "client_not_allowed",
        /// The listener does not let this operation pass.
        OperationNotAllowed = "operation_not_allowed",
        /// The path is not one of the SignalR REST API.
        UnknownPath = "unknown_path",
        /// No route takes the call.
        NoRoute = "no_route",
        /// The path does not take this method.
        MethodNotAllowed = "method_not_allowed",
        /// The caller was too slow in sending the request.
        SlowRequest = "slow_request",
        /// The header that the listener requires is missing.
        HeaderRequired = "header_required",
        /// The caller broke off while sending the body.
        BodyBroken = "body_broken",
        /// The body is larger than `limits.max_body`.
        BodyTooLarge = "body_too_large",
        /// The head is larger than `limits.max_header`.
        HeadersTooLarge = "headers_too_large",
        /// The endpoint broke off after something was sent to it.
        UpstreamBroken = "upstream_broken",
        /// Some endpoints of a fan-out accepted the call and others did not.
        PartialDelivery = "partial_delivery",
        /// There is no valid token for the endpoint.
        TokenUnavailable = "token_unavailable",
        /// No endpoint of the route could be reached; nothing was sent.
        EndpointUnavailable = "endpoint_unavailable",
        /// As many calls are in work as may be.
        Overload = "overload",
        /// There are more calls than a rate allows.
        RateLimited = "rate_limited",
        /// The gateway is stopping.
        Draining = "draining",
        /// The endpoint did not answer within the deadline.
        Deadline = "deadline",
        /// A fault of the gateway itself.
        Internal = "internal",
    }
}

label_enum! {
    /// Why an attempt at an endpoint failed.
    UpstreamErrorReason {
        /// The endpoint's name did not resolve, or not in time.
        Dns = "dns",
        /// The connection was refused or unreachable.
        Connect = "connect",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The connection was not there within `connect_timeout`.
        ConnectTimeout = "timeout_connect",
        /// The answer's head was not there within `timeouts.try`.
        TryTimeout = "timeout_try",
        /// The deadline of the whole request passed.
        RequestTimeout = "timeout_total",
        /// A kept connection ended before the request was written to it.
        ResetBeforeSend = "reset_before_send",
        /// The connection ended after something was written.
        ResetAfterSend = "reset_after_send",
        /// This host was short of file descriptors or memory.
        Local = "local",
        /// The endpoint sent an answer that cannot be read.
        Protocol = "protocol",
        /// The answer's body broke off.
        Body = "body",
    }
}

label_enum! {
    /// What became of a call that found no place at once.
    QueueOutcome {
        /// It got one in time.
        Entered = "entered",
        /// It waited in vain.
        TimedOut = "timed_out",
        /// As many waited as may.
        Full = "full",
    }
}

label_enum! {
    /// What became of a wish to send a request again.
    RetryOutcome {
        /// It was sent again.
        Retried = "retried",
        /// The endpoint had too many retries already.
        Budget = "budget",
        /// It may have been received, so it was not.
        NotSafe = "not_safe",
        /// The deadline left no time.
        Deadline = "deadline",
    }
}

label_enum! {
    /// What an upstream 401 or 403 did to the token.
    UnauthorizedAction {
        /// The token was taken out of service and another obtained.
        Replaced = "replaced",
        /// The token stayed.
        Kept = "kept",
    }
}

label_enum! {
    /// The state of an endpoint's circuit breaker.
    BreakerState {
        /// Calls go to the endpoint.
        Closed = "closed",
        /// Calls go elsewhere.
        Open = "open",
        /// One call finds out whether the endpoint is back.
        HalfOpen = "half_open",
    }
}

label_enum! {
    /// What a kept connection is doing.
    ConnectionState {
        /// Carrying a request.
        Active = "active",
        /// Waiting for one.
        Idle = "idle",
    }
}

label_enum! {
    /// The leg of an acquisition that a token request belongs to.
    TokenStage {
        /// Getting the client assertion (managed identity, file, external identity provider).
        Assertion = "assertion",
        /// Getting the endpoint's token.
        Exchange = "exchange",
    }
}

label_enum! {
    /// How a token request ended.
    TokenOutcome {
        /// A usable token came back.
        Ok = "ok",
        /// It failed in a way that may pass by itself.
        Transient = "transient",
        /// It was refused in a way that somebody must mend.
        Permanent = "permanent",
    }
}

label_enum! {
    /// Why a token request failed.
    TokenErrorReason {
        /// The secret, certificate or assertion was refused.
        InvalidClient = "invalid_client",
        /// The assertion was outside its time window.
        AssertionExpired = "assertion_expired",
        /// The app is unknown to the tenant, or the tenant to the cloud.
        UnknownApp = "unknown_app",
        /// The federated credential, resource or policy does not allow it.
        Refused = "refused",
        /// Too many requests.
        Throttled = "throttled",
        /// No answer: name resolution, connection, TLS, timeout, or a 5xx.
        Network = "network",
        /// An answer that is not a usable token answer.
        Malformed = "malformed",
        /// A secret, certificate or assertion on this host could not be read or used.
        Local = "local",
        /// Anything else.
        Other = "other",
    }
}

/// The statuses that have a label of their own; any other is `_other`.
const CODES: [(u16, &str); 29] = [
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
    (429, "429"),
    (431, "431"),
    // nginx's word for a caller that went away before its answer.
    (499, "499"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

/// The number of different status labels.
pub(super) const CODE_COUNT: usize = CODES.len() + 1;

/// Returns a status's place among the labels.
pub(super) fn code_index(code: u16) -> usize {
    CODES.binary_search_by_key(&code, |(known, _)| *known).unwrap_or(CODES.len())
}

/// Returns the label of a status.
pub(super) fn code_label(code: u16) -> &'static str {
    CODES.get(code_index(code)).map_or("_other", |(_, label)| label)
}
