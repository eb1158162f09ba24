# The images of mlpserve: docker build --target server|trainer|client|web .
# Every package is locked and hashed in deploy/locks; no image contains pip, a compiler or tests. A
# change of the sources makes one small new layer on top of the dependencies.
ARG PYTHON_VERSION=3.13
# The server's packages: `server`, or `server-full`, which adds object stores (s3://, gs://, az://) and
# traces in 21 MB.
ARG SERVER_LOCK=server
# Must match pyproject.toml, or the build does not find the wheel.
ARG VERSION=0.1.0

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
RUN python -m venv --without-pip /opt/mlpserve
# Only named packages are installed, and nothing is compiled. The fixed date makes bytecode that depends
# on the sources alone and stays valid when files are copied.
ENV PIP_NO_DEPS=1 PIP_ONLY_BINARY=:all: PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore SOURCE_DATE_EPOCH=1767225600 \
    REMOVE_TESTS="find /opt/mlpserve -type d -name tests -prune -exec rm -r {} +"

FROM build AS server-dependencies
ARG SERVER_LOCK
COPY deploy/locks/${SERVER_LOCK}.txt /locks/server.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/mlpserve install --require-hashes -r /locks/server.txt && $REMOVE_TESTS

FROM build AS trainer-dependencies
COPY deploy/locks/trainer.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/mlpserve install --require-hashes -r /locks/trainer.txt && $REMOVE_TESTS

FROM build AS client-dependencies
COPY deploy/locks/client.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/mlpserve install --require-hashes -r /locks/client.txt && $REMOVE_TESTS

# mlpserve itself, the same for all images: installed for /opt/mlpserve, but below /staging.
FROM build AS mlpserve
COPY deploy/locks/build.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r /locks/build.txt
WORKDIR /source
COPY . .
ARG VERSION
RUN pip wheel --no-build-isolation --wheel-dir /dist . \
    && pip --python /opt/mlpserve install --root /staging /dist/mlpserve-${VERSION}-*.whl

# The base image without pip, with the user and the folders.
FROM python:${PYTHON_VERSION}-slim-bookworm AS base
# A new volume takes its owner from the folder that it is mounted on.
RUN pip uninstall --quiet --yes --root-user-action ignore pip \
    && rm -r /usr/local/lib/python3*/ensurepip \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin mlpserve \
    && install --directory --owner mlpserve --group mlpserve \
        /models /cache /corrections /certificates /authority /feedback /keys

# One layer, since files removed in a later layer would still take space, 10 MB here.
FROM scratch AS runtime
COPY --from=base / /
ENV PATH=/opt/mlpserve/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MLPSERVE_STORE=/models MLPSERVE_CACHE_DIR=/cache
USER 10001:10001

FROM runtime AS trainer
COPY --from=trainer-dependencies /opt/mlpserve /opt/mlpserve
# The list of fonts, which takes seconds to make; a new cache volume starts with a copy of it.
ENV MPLCONFIGDIR=/cache/matplotlib
RUN ["python", "-c", "import matplotlib.font_manager"]
COPY --from=mlpserve /staging /
# As process 1, Python ignores SIGTERM; an interrupt ends a training cleanly.
STOPSIGNAL SIGINT
ENTRYPOINT ["mlpserve-trainer"]
CMD ["train"]
ARG VERSION REVISION=unknown
LABEL org.opencontainers.image.title="mlpserve trainer" org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION

FROM runtime AS client
COPY --from=client-dependencies /opt/mlpserve /opt/mlpserve
COPY --from=mlpserve /staging /
ENTRYPOINT ["mlpserve-client"]
CMD ["--help"]
ARG VERSION REVISION=unknown
LABEL org.opencontainers.image.title="mlpserve client" org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION

# The client's layers and nothing more: 0 MB beside it.
FROM client AS web
ENV MLPSERVE_LISTEN=0.0.0.0:8080
EXPOSE 8080
# Healthy means that it answers, also while the servers are unreachable, which its page says.
HEALTHCHECK --start-period=30s --start-interval=1s --interval=30s --timeout=5s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; \
build_opener(ProxyHandler({})).open('http://127.0.0.1:8080/v2', timeout=4)"]
ENTRYPOINT ["mlpserve-web"]
CMD []
ARG VERSION REVISION=unknown
LABEL org.opencontainers.image.title="mlpserve web" org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION

# Last, so that a build without --target makes the server.
FROM runtime AS server
COPY --from=server-dependencies /opt/mlpserve /opt/mlpserve
COPY --from=mlpserve /staging /
ENV MLPSERVE_LISTEN=0.0.0.0:50051
# Calls, and metrics if MLPSERVE_METRICS_LISTEN is set.
EXPOSE 50051 9464
# Healthy means ready: a model answers. Checked often at first, so that `up --wait` returns soon.
HEALTHCHECK --start-period=60s --start-interval=1s --interval=10s --timeout=10s --retries=3 \
    CMD ["mlpserve-client", "health"]
ENTRYPOINT ["mlpserve-server"]
ARG VERSION REVISION=unknown
LABEL org.opencontainers.image.title="mlpserve server" org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
