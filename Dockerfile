# The image of `pricebook serve` and `pricebook migrate`.
#
# Where packages come from is for the build environment to say, and nothing of it stays in the final image: the usual
# proxy arguments, --build-arg INDEX_URL for a mirror of PyPI, and a secret `netrc` with the mirror's credentials.

# A Debian with Python. The stages that build take one package from its mirrors, and the last one takes nothing.
ARG BASE_IMAGE=python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS dependencies
ARG INDEX_URL
# As in scripts/uv; a test keeps the two equal.
ARG UV_VERSION=0.13.9
ENV PYTHONDONTWRITEBYTECODE=1
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    python3 -m venv /opt/uv \
    && /opt/uv/bin/python -m pip install --disable-pip-version-check ${INDEX_URL:+--index-url "${INDEX_URL}"} "uv==${UV_VERSION}"
ENV PATH=/opt/uv/bin:${PATH} \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_PROGRESS=1 \
    UV_PROJECT_ENVIRONMENT=/opt/pricebook \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/pricebook
WORKDIR /src
# `uv sync` fetches from the addresses in uv.lock. From a mirror, the same versions are fetched with the same hashes.
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    if [ -z "${INDEX_URL}" ]; then \
        uv sync --locked --no-dev --no-install-project; \
    else \
        uv export --locked --no-dev --no-emit-project --quiet --output-file /requirements.txt \
        && uv venv "${VIRTUAL_ENV}" \
        && uv pip sync --require-hashes --default-index "${INDEX_URL}" /requirements.txt; \
    fi
# A third of what the wheels bring is for others: symbols for debuggers of C, sources for compilers and type checkers, and
# the libraries' own tests. No command shows source code in the languages that Pygments knows, so their bytecode goes, too,
# but for those that Alembic's templates import.
RUN find "${VIRTUAL_ENV}" -name '*.so' -exec strip --strip-unneeded {} + \
    && find "${VIRTUAL_ENV}" -regex '.*\.\(c\|h\|hpp\|pxd\|pyi\|pyx\)' -delete \
    && find "${VIRTUAL_ENV}" -path '*/pygments/lexers/__pycache__/[!_]*' \
        | grep -vxF "$("${VIRTUAL_ENV}/bin/python" -c 'import alembic.command, sys; print(*(module.__cached__ for module in list(sys.modules.values()) if getattr(module, "__cached__", None)), sep="\n")')" \
        | xargs rm \
    && find "${VIRTUAL_ENV}"/lib/*/site-packages -type d \( -name tests -o -name testing \) -prune -exec rm -r {} +

FROM dependencies AS build
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY app app
# What the project adds to the environment goes to /project, so that a new version is a new small layer for whoever
# pulls the image. What it adds to the system goes to /system: the name of its user, whose group a pod then has even if
# it sets the user alone, and bytecode of Python's own library. The official base image has none, and compiling what is
# imported takes a third of the service's start. The cache holds what was built before from other sources of the same
# version: reinstalling builds it from these, and uv compiles all that has no bytecode anew.
RUN --mount=type=cache,target=/root/.cache/uv \
    touch /before \
    && uv sync --locked --no-dev --no-editable --reinstall-package pricebook \
    && mkdir /project /system \
    && cd / \
    && find opt/pricebook -cnewer /before ! -type d ! -path '*/pygments/*' -exec cp --archive --parents --target-directory=/project {} + \
    && PYTHONDONTWRITEBYTECODE='' /opt/pricebook/bin/python -c 'import alembic.command, app.cli, app.gunicorn_worker, app.server' \
    && find usr/ -name '*.pyc' -cnewer /before -exec cp --archive --parents --target-directory=/system {} + \
    && echo 'pricebook:x:65532:65532::/nonexistent:/usr/sbin/nologin' >>etc/passwd \
    && echo 'pricebook:x:65532:' >>etc/group \
    && cp --archive --parents --target-directory=/system etc/passwd etc/group

# For work on a cluster (skaffold.yaml): the same environment with the sources in /src, where they may be overwritten, and
# `serve` starts again when one of them changes.
FROM dependencies AS development
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=secret,id=netrc,target=/root/.netrc \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    uv export --locked --only-group reload --quiet --output-file /reload.txt \
    && uv pip install --require-hashes ${INDEX_URL:+--default-index "${INDEX_URL}"} --requirements /reload.txt
COPY --chown=65532:65532 pyproject.toml README.md LICENSE ./
COPY --chown=65532:65532 app app
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --editable .
COPY --chmod=755 <<"EOF" /usr/local/bin/pricebook-development
#!/bin/sh
if [ "$1" = serve ]; then exec watchfiles --filter python "pricebook serve" /src/app; fi
exec pricebook "$@"
EOF
ENV PATH=/opt/pricebook/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8000 8001
ENTRYPOINT ["pricebook-development"]
CMD ["serve"]

FROM ${BASE_IMAGE}
COPY --from=dependencies /opt/pricebook /opt/pricebook
COPY --from=build /system /
COPY --from=build /project /
ENV PATH=/opt/pricebook/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /opt/pricebook
USER 65532:65532
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
ENTRYPOINT ["pricebook"]
CMD ["serve"]

ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="Pricebook" \
      org.opencontainers.image.description="A price service: what an item costs, with tax, now, on a past date, or from next Monday." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/pricebook/pricebook" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
