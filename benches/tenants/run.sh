#!/usr/bin/env bash
# Measures a gateway with 1, 100, 1,000 and 10,000 tenants in front of the sandbox, and prints a table:
#
#     benches/tenants/run.sh                        # about five minutes, once it is built
#     benches/tenants/run.sh --counts 1 100         # any option of tenants.py
#
# Catches memory, CPU or requests to Entra that grow faster than the number of tenants. The program of GATEWAY_BIN is measured
# instead of a release build. The traffic stays on 127.0.0.1; all started processes are terminated.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
build="$root/target/peers/kit"
gateway=${GATEWAY_BIN:-$root/target/release/signalr-gateway}
if [ -z "${GATEWAY_BIN:-}" ]; then
    cargo build --release --locked --quiet --manifest-path "$root/Cargo.toml"
fi
cargo build --release --locked --quiet --manifest-path ../peers/kit/Cargo.toml --target-dir "$build"
exec python3 tenants.py --gateway "$gateway" --kit "$build/release/peers-kit" "$@"
