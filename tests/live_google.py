"""A fake Live API: a real WebSocket server that answers each message, scripted by key."""

import json
import threading
from collections import defaultdict, deque
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

USAGE = {"promptTokenCount": 10, "responseTokenCount": 7, "thoughtsTokenCount": 2, "totalTokenCount": 19}


class LiveGoogle:
    """Completes every setup, then answers each turn with its text. `close(secret, code, reason)` refuses a session."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all scripts and records."""
        self.paths: list[str] = []
        self.secrets: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.setups: list[dict[str, Any]] = []
        # The codes with which clients closed.
        self.closed: list[int] = []
        self._refusals: defaultdict[str, deque[tuple[int, str]]] = defaultdict(deque)

    def close(self, secret: str, code: int, reason: str) -> None:
        self._refusals[secret].append((code, reason))

    def __enter__(self) -> Self:
        self._server: Server = serve(self._serve, "127.0.0.1", 0, compression=None, max_size=None)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def _serve(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        secret = request.headers.get("x-goog-api-key", "")
        self.paths.append(request.path)
        self.secrets.append(secret)
        self.headers.append({name.lower(): value for name, value in request.headers.raw_items()})
        try:
            self.setups.append(json.loads(connection.recv())["setup"])
            if self._refusals[secret]:
                connection.close(*self._refusals[secret].popleft())
                return
            connection.send(b'{"setupComplete": {}}')
            for message in connection:
                self._answer(connection, message)
        except ConnectionClosed:
            pass
        self.closed.append(connection.close_code or 0)

    def _answer(self, connection: ServerConnection, message: str | bytes) -> None:
        if isinstance(message, bytes):
            connection.send(message)
            return
        turn = json.loads(message)
        content = turn.get("clientContent") or turn.get("client_content") or {}
        text = content.get("turns", [{}])[0].get("parts", [{}])[0].get("text", "")
        if text == "handle":
            connection.send(json.dumps({"sessionResumptionUpdate": {"newHandle": "a/handle+==", "resumable": True}}))
            return
        if text.startswith("close "):
            connection.close(1011, text.removeprefix("close "))
            return
        connection.send(json.dumps({"serverContent": {"modelTurn": {"parts": [{"text": text}]}}}).encode())
        connection.send(json.dumps({"serverContent": {"turnComplete": True}, "usageMetadata": USAGE}).encode())
