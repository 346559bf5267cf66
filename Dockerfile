# syntax=docker/dockerfile:1

# docker build -t signalr-gateway:0.1.0 .
# docker run --rm -p 127.0.0.1:8080:8080 -v "$PWD/gateway.toml:/etc/signalr-gateway/gateway.toml:ro" signalr-gateway:0.1.0
#
# In a container, bind listeners to 0.0.0.0 (`listeners.default.bind`): its loopback address cannot be reached from outside.

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /src
# The image has the C compiler that the cryptography and the linker need. The allocator needs make.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY . .
# `--no-default-features` leaves out the sandbox.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --no-default-features --features redis \
    && cp target/release/signalr-gateway /signalr-gateway

# glibc and the CA certificates, no shell, no package manager.
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
