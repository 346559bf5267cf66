# The gateway's entry for a benchmark harness: only variables, and {placeholders} that the harness fills in.
# `GATEWAY_BIN` replaces the release build of this checkout.
NAME=signalr-gateway
UPSTREAMS="plain tls"
BIN="${GATEWAY_BIN:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/release/signalr-gateway}"
CONFIG=signalr-gateway.toml
CMD='{bin} run --config {config}'
