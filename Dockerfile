# metarep serve in a container: CPU torch, not root, the model folder in a volume.
# This file has not been built: there was no docker where it was written. A linter (hadolint) reads it.
#
#   docker build --tag metarep .
#   docker run --publish 8000:8000 --volume "$PWD/moths:/model" --env METAREP_TOKEN metarep
#
# The folder must be writable by user 1000. An empty one becomes a model without classes, which the page fills.
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && python -m venv /app
WORKDIR /source
COPY constraints.txt ./
RUN /app/bin/pip install --no-cache-dir --constraint constraints.txt --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
RUN /app/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve,pretrained]'

FROM python:3.11-slim-bookworm
COPY --from=build /app /app
RUN useradd --uid 1000 --create-home metarep && install --directory --owner metarep /model
USER 1000
ENV PATH=/app/bin:$PATH GOMP_SPINCOUNT=20000 PYTHONDONTWRITEBYTECODE=1
VOLUME /model
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# METAREP_TOKEN must be given: without one the server refuses an address that other machines reach.
ENTRYPOINT ["metarep", "serve", "/model", "--host", "0.0.0.0", "--port", "8000", "--encoder", "auto"]
