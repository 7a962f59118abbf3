"""Two nginx servers: the static upstream, and a plain proxy, which is the limit of what can be reached."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import running

ANSWER = json.dumps(
    {
        "candidates": [
            {
                "content": {"parts": [{"text": "All that is gold does not glitter. " * 8}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {"promptTokenCount": 41, "candidatesTokenCount": 72, "totalTokenCount": 113},
        "modelVersion": "gemini-2.5-flash",
        "responseId": "PLACEHOLDER-response-id",
    }
)
CONFIG = """
daemon off; pid {folder}/nginx.pid; error_log stderr error; worker_processes {workers};
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; default_type application/json;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    log_format served "$request_method $status";
    {http}
}}
"""
STATIC = """
    server {{
        listen 127.0.0.1:{port} backlog=4096; access_log {log} served buffer=64k;
        location / {{ return 200 '{answer}'; }}
    }}
"""
PROXY = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://127.0.0.1:{upstream_port}; }}
    }}
"""
KEEPING_PROXY = """
    upstream gemini {{ server 127.0.0.1:{upstream_port}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ proxy_pass http://gemini; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
"""


@contextmanager
def static_upstream(folder: Path, ports: list[int]) -> Iterator[None]:
    """Answer all requests on `ports` with ANSWER, in one worker. `served` counts them afterwards."""
    servers = [STATIC.format(port=port, log=folder / f"{port}.log", answer=ANSWER) for port in ports]
    with _nginx(folder / "upstream", "".join(servers), port=ports[0], workers=1):
        yield


def served(folder: Path, port: int) -> int:
    """Return how many POST requests got a 200 on `port`. The number is exact once the upstream has stopped."""
    return (folder / f"{port}.log").read_text().splitlines().count("POST 200")


@contextmanager
def limit(folder: Path, *, upstream_port: int, port: int, keeps_connections: bool = False) -> Iterator[None]:
    """Forward requests from `port` to `upstream_port`, in two workers."""
    http = (KEEPING_PROXY if keeps_connections else PROXY).format(upstream_port=upstream_port, port=port)
    with _nginx(folder / f"limit-{port}", http, port=port, workers=2):
        yield


@contextmanager
def _nginx(folder: Path, http: str, *, port: int, workers: int) -> Iterator[None]:
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, workers=workers, http=http))
    with running(["nginx", "-p", str(folder), "-c", str(config)], port=port, log=folder / "output.log"):
        yield
