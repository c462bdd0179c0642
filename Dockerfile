# syntax=docker/dockerfile:1
# Corral, with the request's path compiled to C (docs/decisions/0007). All stages have the same Python: what is compiled fits no other.
# Two images: `docker build .` is the gateway, `docker build --target dashboard .` the app in a browser, which is some four times as large.
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /opt/corral
COPY pyproject.toml README.md LICENSE ./
COPY dashboard dashboard
COPY gateway gateway
COPY simulator simulator
ENV PIP_CONSTRAINT=/source/constraints.txt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN HATCH_BUILD_HOOKS_ENABLE=1 pip wheel --no-deps -w /wheels .
RUN /opt/corral/bin/pip install "$(echo /wheels/*.whl)[tracing]" \
 && /opt/corral/bin/python -P -c 'import gateway.relay.relay as relay; assert relay.__file__.endswith(".so"), relay.__file__'

FROM build AS build-dashboard
RUN /opt/corral/bin/pip install "$(echo /wheels/*.whl)[dashboard]"

FROM python:3.12-slim-bookworm AS base
LABEL org.opencontainers.image.title="Corral" \
      org.opencontainers.image.description="One Ollama address for a fleet: load-aware, cancellable, observable." \
      org.opencontainers.image.licenses="Apache-2.0"
# A user of its own, by number, so that Kubernetes can see that it is not root; the only place it writes to is /data.
RUN groupadd --gid 10001 corral && useradd --uid 10001 --gid corral --no-create-home --home-dir /data --shell /usr/sbin/nologin corral \
 && install --directory --owner=corral --group=corral --mode=0700 /data
ENV PATH=/opt/corral/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["corral"]

# The app: writes nothing, keeps nothing. CORRAL_GATEWAY, or --gateway, is where it asks.
FROM base AS dashboard
COPY --from=build-dashboard /opt/corral /opt/corral
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8501/healthz', timeout=2)"]
CMD ["dashboard", "--listen", "0.0.0.0:8501"]

FROM base AS gateway
COPY --from=build /opt/corral /opt/corral
ENV CORRAL_LISTEN=0.0.0.0:11434 XDG_DATA_HOME=/data
VOLUME /data
EXPOSE 11434
# It lives: whether it can serve is /readyz, which no restart would mend.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:11434/healthz', timeout=2)"]
CMD ["serve"]
