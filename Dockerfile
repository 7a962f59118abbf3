FROM python:3.13-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN useradd --system --uid 10001 --home-dir /app keymanager && mkdir -p /data && chown keymanager /data
USER keymanager
# Logs go to the console; the database and the generated secret live in the volume.
ENV DATA_DIR=/data LOG_DIR= KEY_FILE=/data/key.txt
VOLUME /data
EXPOSE 5000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:5000/healthz', timeout=4)"
CMD ["python", "manage.py", "serve"]
