# To pin the base image: --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:…
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS builder
WORKDIR /app
COPY requirements/postgres.txt /tmp/requirements.txt
RUN python -m venv --without-pip /venv \
  && pip --python /venv install --no-cache-dir --require-hashes -r /tmp/requirements.txt
COPY manage.py gunicorn.conf.py ./
COPY keymanager keymanager
COPY proxy proxy
COPY templates templates
# chmod: in a private checkout, only the owner can read the files. There is no collectstatic, because WhiteNoise serves
# static files from where the packages keep them (WHITENOISE_USE_FINDERS).
RUN chmod -R a+rX . && python -m compileall -q .

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home --home-dir /app keymanager && mkdir /data && chown keymanager /data
COPY --from=builder /venv /venv
COPY --from=builder /app /app
WORKDIR /app
# Logs go to the console; the database and the generated secret live in the volume.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DATA_DIR=/data LOG_DIR= KEY_FILE=/data/key.txt
USER 10001
VOLUME /data
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:5000/healthz', timeout=4)"
CMD ["python", "manage.py", "serve"]
