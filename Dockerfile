# syntax=docker/dockerfile:1

# docker build -t signalr-gateway:0.2.0 .
# docker run --rm -p 127.0.0.1:8080:8080 -v "$PWD/gateway.toml:/etc/signalr-gateway/gateway.toml:ro" signalr-gateway:0.2.0
#
# The sandbox, for tests (config/guide/emulator-containers.md):
# docker build --target sandbox -t signalr-gateway-sandbox:0.2.0 .
#
# In a container, bind listeners to 0.0.0.0 (`listeners.default.bind`): its loopback address cannot be reached from outside.

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-slim-bookworm AS toolchain
WORKDIR /src
# The image has the C compiler that the cryptography and the linker need. The allocator needs make.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY . .

FROM toolchain AS build
# `--no-default-features` leaves out the sandbox.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --no-default-features --features redis \
    && cp target/release/signalr-gateway /signalr-gateway

FROM toolchain AS build-sandbox
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
    && cp target/release/signalr-gateway /signalr-gateway

# Only for tests: emulated services, and secrets that are no secrets.
FROM gcr.io/distroless/cc-debian12:nonroot AS sandbox
COPY --from=build-sandbox /signalr-gateway /signalr-gateway
COPY config/sandbox-image.toml /sandbox.toml
USER 65532:65532
# The gateway, its admin listener, the control listener with the page, Entra, the metadata services, the endpoints.
EXPOSE 8080 9090 9400 9401 9402 9403 9404 9405 9411 9412
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=2s --timeout=3s --start-period=5s CMD ["/signalr-gateway", "health"]
ENTRYPOINT ["/signalr-gateway", "sandbox", "--config", "/sandbox.toml"]

# The last target is the default. glibc and the CA certificates, no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /signalr-gateway /signalr-gateway
# A number, so that Kubernetes can check that it is not root.
USER 65532:65532
ENV SIGNALR_GATEWAY_CONFIG=/etc/signalr-gateway/gateway.toml
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Asks the admin listener. If `admin.bind` has another port, set it in an image that is built on this one:
# HEALTHCHECK CMD ["/signalr-gateway", "health", "--admin", "127.0.0.1:9191"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/signalr-gateway", "health"]
ENTRYPOINT ["/signalr-gateway"]
CMD ["run"]
