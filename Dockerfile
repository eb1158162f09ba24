# The images of mlpserve: docker build --target server|trainer|client .
# Everything installed is locked and hashed in deploy/locks; no image holds pip, a compiler
# or tests. A change of the sources makes one small new layer, on top of the dependencies'.
ARG PYTHON_VERSION=3.13
# What the server is made of: `server`, or `server-full`, 21 MB more, with object stores
# (s3://, gs://, az://) and traces.
ARG SERVER_LOCK=server
# The same as in pyproject.toml, or the build fails where it looks for the wheel.
ARG VERSION=0.1.0

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
RUN python -m venv --without-pip /opt/mlpserve
# Only what is named is installed, and nothing is compiled. The date makes bytecode that
# depends on the sources alone and that a copied file's time cannot outdate.
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

# mlpserve itself, the same for all: installed as into /opt/mlpserve, but under /staging.
FROM build AS mlpserve
COPY deploy/locks/build.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r /locks/build.txt
WORKDIR /source
COPY . .
ARG VERSION
RUN pip wheel --no-build-isolation --wheel-dir /dist . \
    && pip --python /opt/mlpserve install --root /staging /dist/mlpserve-${VERSION}-*.whl

# The base without pip, with our user and folders.
FROM python:${PYTHON_VERSION}-slim-bookworm AS base
# A fresh volume takes its owner from the folder that it is mounted on.
RUN pip uninstall --quiet --yes --root-user-action ignore pip \
    && rm -r /usr/local/lib/python3*/ensurepip \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin mlpserve \
    && install --directory --owner mlpserve --group mlpserve \
        /models /cache /corrections /certificates /authority

# As one layer: what a later layer removes still counts, 10 MB here.
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
# As process 1 Python would not notice a SIGTERM; an interrupt ends a training cleanly.
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

# Last, so that a build without --target makes the server.
FROM runtime AS server
COPY --from=server-dependencies /opt/mlpserve /opt/mlpserve
COPY --from=mlpserve /staging /
ENV MLPSERVE_LISTEN=0.0.0.0:50051
# Calls; metrics, when MLPSERVE_METRICS_LISTEN asks for them.
EXPOSE 50051 9464
# Healthy is ready: a model answers. Asked often at first, so that `up --wait` ends soon.
HEALTHCHECK --start-period=60s --start-interval=1s --interval=10s --timeout=10s --retries=3 \
    CMD ["mlpserve-client", "health"]
ENTRYPOINT ["mlpserve-server"]
ARG VERSION REVISION=unknown
LABEL org.opencontainers.image.title="mlpserve server" org.opencontainers.image.licenses=MIT \
      org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
