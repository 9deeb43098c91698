# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY filters filters
COPY src src
# No part of the program, but a member of the workspace.
COPY train train
COPY conf conf
COPY docs/openapi.json docs/openapi.json
# The image's own toolchain: rust-toolchain.toml would download another.
ENV RUSTUP_TOOLCHAIN=1.95
RUN cargo build --release --locked --bin portcullis && strip target/release/portcullis
# A folder that the unprivileged user may write: the audit trail. Everything else can be read-only.
RUN mkdir -p /out/var/lib/portcullis

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/portcullis /usr/local/bin/portcullis
COPY --from=build --chown=10001:10001 /out/var/lib/portcullis /var/lib/portcullis
USER 10001:10001
WORKDIR /var/lib/portcullis
EXPOSE 8080
VOLUME ["/var/lib/portcullis"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/portcullis", "health", "http://127.0.0.1:8081/livez"]
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["serve", "-c", "/etc/portcullis/portcullis.yaml"]
