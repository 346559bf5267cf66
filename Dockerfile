# syntax=docker/dockerfile:1

# docker build -t signalr-gateway:0.1.0 .
# docker run --rm -p 127.0.0.1:8080:8080 -v "$PWD/gateway.toml:/etc/signalr-gateway/gateway.toml:ro" signalr-gateway:0.1.0
#
# In a container, bind listeners to 0.0.0.0 (`listeners.default.bind`): its loopback address cannot be reached from outside.

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /src
COPY . .
# `--no-default-features` leaves out the sandbox. The image has the C compiler that the cryptography and the linker need.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --no-default-features \
    && cp target/release/signalr-gateway /signalr-gateway

# glibc and the CA certificates, no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /signalr-gateway /signalr-gateway
# A number, so that Kubernetes can check that it is not root.
USER 65532:65532
ENV SIGNALR_GATEWAY_CONFIG=/etc/signalr-gateway/gateway.toml
# glibc returns freed memory to the kernel early and requests it again, which costs a tenth of the CPU time of requests with
# bodies of 64 KiB. This lets each worker keep up to 8 MiB. The second variable is needed because glibc stops adjusting its
# threshold of large buffers once the first is set.
ENV MALLOC_TRIM_THRESHOLD_=8388608 MALLOC_MMAP_THRESHOLD_=4194304
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Asks the admin listener. If `admin.bind` has another port, set it in an image that is built on this one:
# HEALTHCHECK CMD ["/signalr-gateway", "health", "--admin", "127.0.0.1:9191"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/signalr-gateway", "health"]
ENTRYPOINT ["/signalr-gateway"]
CMD ["run"]
