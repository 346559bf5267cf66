# syntax=docker/dockerfile:1

# docker build -t signalr-gateway:0.1.0 .
# docker run --rm -p 127.0.0.1:8080:8080 -v "$PWD/gateway.toml:/etc/signalr-gateway/gateway.toml:ro" signalr-gateway:0.1.0
#
# In a container, bind listeners to 0.0.0.0 (`listeners.default.bind`): its loopback is out of reach from outside.

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /src
COPY . .
# The sandbox stays out: `--no-default-features`. The linker's C compiler, for the cryptography, is in the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --no-default-features \
    && cp target/release/signalr-gateway /signalr-gateway

# glibc and the CA certificates, no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /signalr-gateway /signalr-gateway
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENV SIGNALR_GATEWAY_CONFIG=/etc/signalr-gateway/gateway.toml
# glibc gives memory back to the kernel early and takes it again: with bodies of 64 KiB for every request, which is a tenth of
# its CPU time. With this each worker keeps up to 8 MiB for the next.
# (The second: by default glibc learns to keep large buffers, too, but not once it is told the first.)
ENV MALLOC_TRIM_THRESHOLD_=8388608 MALLOC_MMAP_THRESHOLD_=4194304
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Asks the admin listener. Where `admin.bind` is another port, an image built on this one can say so:
# HEALTHCHECK CMD ["/signalr-gateway", "health", "--admin", "127.0.0.1:9191"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/signalr-gateway", "health"]
ENTRYPOINT ["/signalr-gateway"]
CMD ["run"]
