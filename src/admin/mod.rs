//! The admin listener: metrics, liveness, readiness and status, apart from callers' traffic.
