# headworks in a container, as an ordinary user, with the mortgage demo as its configuration.
#
#   docker build -t headworks .
#   docker run --rm -p 8080:8080 -v headworks:/var/lib/headworks headworks
#
# For your own models, mount a folder with headworks.yaml over /etc/headworks. State and keys lie in
# the volume; whoever loses its keys can read none of its records. The data port is opened beyond
# loopback here. The admin port is not, since that needs `people` in headworks.yaml: once they are
# there, add `-e HEADWORKS_LISTEN_ADMIN=0.0.0.0:9901 -p 9901:9901`; for the demo's console,
# `--network host -e HEADWORKS_LISTEN_DATA=127.0.0.1:8080`. Stop with `docker stop --time 60`, so
# that open exchanges may end (`drain`).
FROM python:3.11 AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/headworks && python -m venv --without-pip /build/compiler
COPY requirements.lock requirements-compile.lock ./
# The locks are complete: what one forgot is found by `pip check`, and never resolved here.
RUN pip --python /opt/headworks/bin/python install --no-cache-dir --no-deps -r requirements.lock
RUN pip --python /build/compiler/bin/python install --no-cache-dir --no-deps -r requirements-compile.lock
COPY pyproject.toml README.md ./
COPY gateway ./gateway
# The busiest modules as machine code; the package takes them along.
RUN /build/compiler/bin/python -m gateway.compiler
RUN pip --python /opt/headworks/bin/python install --no-cache-dir --no-deps . \
    && pip --python /opt/headworks/bin/python check

FROM python:3.11-slim
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/headworks headworks \
    && install --directory --mode=0700 --owner=10001 --group=headworks /var/lib/headworks
COPY --from=build /opt/headworks /opt/headworks
WORKDIR /etc/headworks
COPY headworks.yaml ./
COPY models/mortgage ./models/mortgage
ENV PATH=/opt/headworks/bin:$PATH \
    HEADWORKS_LISTEN_DATA=0.0.0.0:8080 \
    HEADWORKS_STATE=/var/lib/headworks/state \
    HEADWORKS_KEYS=/var/lib/headworks/keys
USER 10001
VOLUME ["/var/lib/headworks"]
EXPOSE 8080 9901
# The worker's own readiness, past any proxy of the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-c", "import os, urllib.request as u; port = os.environ['HEADWORKS_LISTEN_DATA'].rpartition(':')[2]; u.build_opener(u.ProxyHandler({})).open(f'http://127.0.0.1:{port}/-/ready', timeout=3)"]
CMD ["headworks", "serve", "--config", "/etc/headworks/headworks.yaml"]
