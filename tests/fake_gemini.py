"""A fake Gemini API: a real HTTP/1.1 server on the loopback interface, scripted by key, that records its requests.

    with FakeGemini() as gemini:
        gemini.exhaust("secret-one")
        requests.post(f"{gemini.url}/v1/models/gemini-2.5-flash:generateContent", json={}, headers=…)

To run it alone: `python -m tests.fake_gemini --port 9001 --chunks 5 --pace 0.1`. Framing, headers and token counts
follow recorded answers: js-genai's test/system/recordings, and the cassettes of pydantic-ai and llm-gemini.
"""

import argparse
import json
import math
import re
import select
import socket
import struct
import sys
import time
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import Enum, auto
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Event, Thread
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote
from zoneinfo import ZoneInfo

from tests import gemini_errors as errors
from tests.fake_resources import ProjectResources
from tests.gemini_errors import Reply

__all__ = ["ANSWER_TOKENS", "PROMPT_TOKENS", "THOUGHT_TOKENS", "TOTAL_TOKENS"]
__all__ += ["Decision", "FakeGemini", "Fault", "Reply", "Seen", "errors"]

# What every whole answer costs, unless the body says `"input_tokens": N`: then the prompt's are N. Thoughts are in the
# total, not in the answer's tokens.
PROMPT_TOKENS, ANSWER_TOKENS, THOUGHT_TOKENS = 35, 12, 62
TOTAL_TOKENS = PROMPT_TOKENS + ANSWER_TOKENS + THOUGHT_TOKENS

_JSON, _SSE = "application/json; charset=UTF-8", "text/event-stream"
_USUAL_HEADERS = {
    "Server": "scaffolding on HTTPServer2",
    "Vary": "Origin, X-Origin, Referer",
    "X-XSS-Protection": "0",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Server-Timing": "gfet4t7; dur=12",
    "Alt-Svc": 'h3=":443"; ma=2592000,h3-29=":443"; ma=2592000',
}
_MODELS = ("gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro", "gemini-embedding-001")
_VECTOR = [0.1, 0.2, 0.3]
# Where credentials are met. Google looks at the first four and refuses two of them at once.
_GOOGLE_LOOKS_AT = ("x-goog-api-key", "authorization", "key", "access_token")
_CREDENTIAL_HEADERS = ("x-goog-api-key", "authorization", "x-api-key", "api-key", "cookie")
_POLL_SECONDS = 0.02
_PACIFIC = ZoneInfo("America/Los_Angeles")
_MINUTE = 60.0


class Fault(Enum):
    """What a connection can do instead of sending a complete answer."""

    HANG = auto()  # the request is read, and nothing comes until `stop()` or `reset()`
    RESET_BEFORE = auto()  # a TCP reset, before the first byte of the answer
    RESET_MIDDLE = auto()  # a TCP reset, after the head and half of the body or of the events


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it was received."""

    method: str
    # The raw target, with its query.
    path: str
    # In order, with names as written.
    headers: list[tuple[str, str]]
    body: bytes
    # The credential that Google would use, "" if none.
    secret: str
    # Every credential in the request, wherever it was found.
    credentials: list[str]

    def header(self, name: str) -> str | None:
        """Return the first header with this name, in any case."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)


class _Ask(NamedTuple):
    """What a request asks for."""

    # A key of `_ENDPOINTS`, or any other last part of a path.
    endpoint: str
    version: str
    model_name: str
    is_openai: bool
    is_sse: bool
    is_streaming: bool
    # The JSON body, or None if it is not a JSON object.
    document: dict[str, Any] | None

    @property
    def is_generation(self) -> bool:
        return self.endpoint in _GENERATIONS

    @property
    def input_tokens(self) -> int:
        tokens = (self.document or {}).get("input_tokens")
        return tokens if isinstance(tokens, int) else PROMPT_TOKENS


class _Stream(NamedTuple):
    """An answer in pieces."""

    content_type: str
    events: list[bytes]
    # Sent directly after the last event.
    tail: bytes = b""


class Decision(NamedTuple):
    """The outcome of a generation request."""

    # By `time.time()`.
    moment: float
    project: str
    model: str
    # Whether it was counted against the quotas.
    is_accepted: bool
    # The IDs of the quotas that the 429 named.
    violated: tuple[str, ...]
    # Of the input.
    tokens: int


class _Limit(NamedTuple):
    """The limits of a project for a model. None: no limit."""

    per_day: int | None = None
    per_minute: int | None = None
    # Of the input.
    tokens_per_minute: int | None = None


class _Usage:
    """The requests of a project for a model. Moments are those of `time.time()`."""

    def __init__(self) -> None:
        self._minute: deque[tuple[float, int]] = deque()  # moment and tokens of each request
        self._on_day: Counter[date] = Counter()

    def add(self, now: float, tokens: int) -> None:
        self._minute.append((now, tokens))
        self._on_day[datetime.fromtimestamp(now, _PACIFIC).date()] += 1

    def violations(self, limit: _Limit, now: float, tokens: int) -> dict[errors.Violation, float]:
        """Return every quota that a request would exceed, and in how many seconds it would fit."""
        while self._minute and self._minute[0][0] + _MINUTE <= now:
            self._minute.popleft()
        found = {}
        if (most := limit.per_minute) is not None and len(self._minute) >= most:
            found[errors.Violation(errors.PER_MINUTE, most)] = self._seconds_until(now, most - 1)
        if (most := limit.tokens_per_minute) is not None and self._minute and self._tokens + tokens > most:
            violation = errors.Violation(errors.TOKENS_PER_MINUTE, most)
            found[violation] = self._seconds_until(now, len(self._minute), most - tokens)
        today = datetime.fromtimestamp(now, _PACIFIC)
        if (most := limit.per_day) is not None and self._on_day[today.date()] >= most:
            midnight = datetime.combine(today.date() + timedelta(days=1), datetime.min.time(), _PACIFIC)
            found[errors.Violation(errors.PER_DAY, most)] = midnight.timestamp() - now
        return found

    @property
    def _tokens(self) -> int:
        return sum(tokens for _, tokens in self._minute)

    def _seconds_until(self, now: float, requests: int, tokens: float = math.inf) -> float:
        """Return in how many seconds the minute window holds at most this many requests and tokens, or is empty."""
        remaining, remaining_tokens = len(self._minute), self._tokens
        for moment, its_tokens in self._minute:
            remaining, remaining_tokens = remaining - 1, remaining_tokens - its_tokens
            if remaining <= requests and remaining_tokens <= tokens:
                return moment + _MINUTE - now
        return self._minute[-1][0] + _MINUTE - now if self._minute else _MINUTE


class FakeGemini:
    """The server, with the settings that tests change and the records that they read."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.changed = Condition()
        self.released = Event()
        self.reset()

    def reset(self) -> None:
        """Forget all scripts and records, and end all hanging answers and streams."""
        self.released.set()
        with self.changed:
            self.released = Event()
            self.seen: list[Seen] = []
            # Generation requests that got an answer other than 429, complete or not, by (secret, model_name).
            self.accepted: Counter[tuple[str, str]] = Counter()
            # Generation requests in order, without those that hung or were reset at once.
            self.decisions: list[Decision] = []
            # Answers whose client disconnected before their end.
            self.closed_early = 0
            # The events of a stream, and the seconds between them.
            self.chunks, self.pace = 3, 0.0
            # How long every answer takes to begin. Quotas are checked before.
            self.first_byte_seconds = 0.0
            # The last event of every stream waits for it.
            self.hold: Event | None = None
            # Every answer waits for it before its first byte, after quotas are checked.
            self.hold_heads: Event | None = None
            # The text of every answer. A request with `echo:N` in its body gets N bytes instead.
            self.text = "Grüße from a fake Gemini: one, two, three ✨"
            self._projects: dict[str, str] = {}
            self._limits: dict[tuple[str, str], _Limit] = {}
            self._exhausted: set[tuple[str, str]] = set()
            self._overloaded_until: dict[str, float] = {}
            self._scripts: dict[str, deque[Reply | Fault]] = {}
            self._usage: defaultdict[tuple[str, str], _Usage] = defaultdict(_Usage)
            self.resources = ProjectResources()

    def start(self) -> Self:
        """Listen, in a separate thread. After `stop()`, listen on the same port again."""
        self.released = Event()
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening and close every connection."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def is_holding(self) -> bool:
        return (hold := self.hold) is not None and not hold.is_set()

    @property
    def is_holding_heads(self) -> bool:
        return (hold := self.hold_heads) is not None and not hold.is_set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def secrets_seen(self) -> list[str]:
        return [seen.secret for seen in self.seen]

    def know(self, secret: str, project: str | None = None) -> None:
        """Register a key, in a separate project unless it is named. From then on, unknown keys are refused."""
        self._projects[secret] = project or secret

    def limit(
        self,
        *,
        project: str = "*",
        model: str = "*",
        per_day: int | None = None,
        per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        """Enforce a quota. "*" applies to each project or model separately, and a name takes precedence over it.

        The minute is a sliding window, the day is Pacific. Refused requests do not count. tokens_per_minute: of the
        input; an empty minute accepts any request, however large.
        """
        self._limits[project, model] = _Limit(per_day, per_minute, tokens_per_minute)

    def exhaust(self, *secrets: str, model: str = "*") -> None:
        """Answer generation requests with these keys with a daily 429 and a retry delay of many hours."""
        self._exhausted |= {(secret, model) for secret in secrets}

    def overload(self, model: str, seconds: float) -> None:
        """Answer all generation requests for `model` with a 503 for this long. They use no quota."""
        self._overloaded_until[model] = time.time() + seconds

    def script(self, secret: str, *replies: Reply | Fault) -> None:
        """Script the answers to the next requests with `secret`, in order ("*": requests without another script)."""
        self._scripts.setdefault(secret, deque()).extend(replies)

    def wait_for(self, condition: Callable[[], object], timeout_seconds: float = 5.0) -> bool:
        """Wait until `condition` is true, and tell whether it is in time. For `seen`, `accepted` and `closed_early`."""
        with self.changed:
            return bool(self.changed.wait_for(condition, timeout_seconds))

    def take(self, seen: Seen, ask: _Ask) -> tuple[Fault | None, Reply | None]:
        """Record a request, and return its scripted answer or refusal, or None for a normal answer."""
        with self.changed:
            self.seen.append(seen)
            self.changed.notify_all()
            script = self._scripts.get(seen.secret) or self._scripts.get("*")
            planned = script.popleft() if script else None
            if planned in (Fault.HANG, Fault.RESET_BEFORE):
                return planned, None
            now = time.time()
            reply = planned if isinstance(planned, Reply) else self._refusal(seen, ask, now)
            if ask.is_generation:
                if reply is None or reply.status != 429:
                    self.accepted[seen.secret, ask.model_name] += 1
                self.decisions.append(self._decision(now, seen, ask, reply))
            return (planned if isinstance(planned, Fault) else None), reply

    def begin_interaction(self, seen: Seen) -> str:
        """Return the id of a new interaction of the key's project."""
        with self.changed:
            return str(self.resources.make(self._project_of(seen), "interactions/v1_{}")["name"]).partition("/")[2]

    def lose_client(self, released: Event) -> None:
        """Count a client that disconnected, unless its test is over."""
        with self.changed:
            self.closed_early += not released.is_set()
            self.changed.notify_all()

    def _refusal(self, seen: Seen, ask: _Ask, now: float) -> Reply | None:
        if reply := _credential_refusal(seen, is_openai=ask.is_openai):
            return reply
        if self._projects and seen.secret not in self._projects:
            return errors.invalid_key()
        headers = {name.lower(): value for name, value in seen.headers}
        about = self.resources.answer(self._project_of(seen), seen.method, seen.path, headers, seen.body)
        if about is not None:
            return about
        action = ask.endpoint.rpartition(" ")[2]
        if ask.endpoint not in _ENDPOINTS:
            return errors.not_found()
        if "unknown" in ask.model_name:
            return errors.unknown_model(ask.model_name, ask.version, action)
        if (ask.is_generation or action == "countTokens") and ask.document is None:
            return errors.bad_request("Invalid JSON payload received.")
        if not ask.is_generation:
            return None
        if now < self._overloaded_until.get(ask.model_name, now):
            return errors.overloaded()
        if {(seen.secret, ask.model_name), (seen.secret, "*")} & self._exhausted:
            return errors.per_day_long(ask.model_name)
        return self._quota_refusal(self._project_of(seen), ask, now)

    def _quota_refusal(self, project: str, ask: _Ask, now: float) -> Reply | None:
        """Return a 429 that names all exhausted quotas, or count the request against its quotas and return None."""
        model = ask.model_name
        names = ((project, model), (project, "*"), ("*", model), ("*", "*"))
        limit = next((self._limits[name] for name in names if name in self._limits), _Limit())
        usage = self._usage[project, model]
        if violations := usage.violations(limit, now, ask.input_tokens):
            return errors.quota_exceeded(model, *violations, delay_seconds=max(violations.values()))
        usage.add(now, ask.input_tokens)
        return None

    def _decision(self, now: float, seen: Seen, ask: _Ask, reply: Reply | None) -> Decision:
        violated = errors.violated_in(reply) if reply else ()
        return Decision(now, self._project_of(seen), ask.model_name, reply is None, violated, ask.input_tokens)

    def _project_of(self, seen: Seen) -> str:
        return self._projects.get(seen.secret, seen.secret)


def _credentials_in(path: str, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (place, credential) for every credential in a request, Authorization without its scheme."""
    found = []
    for name, value in headers:
        place, words = name.lower(), value.split(maxsplit=1)
        if place in _CREDENTIAL_HEADERS and words:
            found.append((place, words[-1] if place == "authorization" else value.strip()))
    query = parse_qsl(path.partition("?")[2])
    return found + [(name, value) for name, value in query if name in ("key", "access_token")]


def _credential_refusal(seen: Seen, *, is_openai: bool) -> Reply | None:
    places = [place for place, _ in _credentials_in(seen.path, seen.headers) if place in _GOOGLE_LOOKS_AT]
    if len(places) > 1:
        return errors.two_credentials()
    if not places:
        return errors.no_credential()
    if is_openai:
        is_bearer = (seen.header("authorization") or "").lower().startswith("bearer ")
        return None if is_bearer else errors.missing_bearer()
    return None if places[0] in ("x-goog-api-key", "key") else errors.wrong_credential_type()


def _read_ask(seen: Seen) -> _Ask:
    path, _, query = seen.path.partition("?")
    # Paths are transcoded to gRPC: an encoded slash or colon means what a plain one does; `//` is tolerated.
    found = re.fullmatch(r"/+(v[0-9a-z]+)/(openai/)?(.*)", unquote(path))
    version, openai, resource = found.groups() if found else ("", None, unquote(path))
    model_name = ""
    if named := re.fullmatch(r"(?:models|tunedModels)/([^:]+)(?::(\w+))?", resource):
        model_name, resource = named[1], named[2] or "models/*"
    try:
        document = json.loads(seen.body or b"{}")
    except ValueError:
        document = None
    document = document if isinstance(document, dict) else None
    if not model_name and document:
        model_name = str(document.get("model") or document.get("agent") or "").removeprefix("models/")
    return _Ask(
        endpoint=f"{'GET' if seen.method == 'HEAD' else seen.method} {openai or ''}{resource}",
        version=version,
        model_name=model_name,
        is_openai=bool(openai),
        is_sse=resource == "streamGenerateContent" and dict(parse_qsl(query)).get("alt") == "sse",
        is_streaming=bool(document and document.get("stream")),
        document=document,
    )


class _Answers:
    """The normal answers to one request: a dict, which is sent as JSON, or a stream."""

    def __init__(self, gemini: FakeGemini, seen: Seen, ask: _Ask) -> None:
        self.ask = ask
        self._gemini, self._seen = gemini, seen
        self.prompt_tokens = ask.input_tokens
        self.text = gemini.text
        if echo := re.search(rb"echo:(\d+)", seen.body):
            self.text = "0123456789" * (int(echo[1]) // 10) + "0123456789"[: int(echo[1]) % 10]
        count, length = max(1, gemini.chunks), len(self.text)
        self.parts = [self.text[n * length // count : (n + 1) * length // count] for n in range(count)]

    def generate(self) -> dict[str, Any]:
        return self._content(self.text)

    def stream(self) -> _Stream:
        events = self._growing(self._content)
        if self.ask.is_sse:
            return _Stream(_SSE, [b"data: %b\r\n\r\n" % event for event in events])
        frames = [b"%b%b\n" % (b",\r\n" if n else b"[", event) for n, event in enumerate(events)]
        return _Stream(_JSON, frames, b"]")

    def chat(self) -> dict[str, Any] | _Stream:
        if not self.ask.is_streaming:
            return self._completion(self.text)
        events = self._growing(partial(self._completion, kind="chat.completion.chunk", message="delta"))
        return _Stream(_SSE, [b"data: %b\n\n" % event for event in events], b"data: [DONE]\n\n")

    def interact(self) -> dict[str, Any] | _Stream:
        usage = {"total_input_tokens": self.prompt_tokens, "total_output_tokens": ANSWER_TOKENS}
        total = self.prompt_tokens + ANSWER_TOKENS + THOUGHT_TOKENS
        usage |= {"total_thought_tokens": THOUGHT_TOKENS, "total_tokens": total}
        step = {"type": "model_output", "content": [{"type": "text", "text": self.text}]}
        begun = {
            "id": self._gemini.begin_interaction(self._seen),
            "model": self.ask.model_name,
            "status": "in_progress",
        }
        whole = begun | {"status": "completed", "steps": [step], "usage": usage}
        if not self.ask.is_streaming:
            return whole
        deltas = ({"index": 0, "delta": {"type": "text", "text": part}} for part in self.parts)
        events: list[dict[str, Any]] = [
            {"event_type": "interaction.created", "interaction": begun},
            {"event_type": "step.start", "index": 0, "step": {"type": "model_output", "content": []}},
            *({"event_type": "step.delta"} | delta for delta in deltas),
            {"event_type": "step.stop", "index": 0},
            {"event_type": "interaction.completed", "interaction": whole},
        ]
        frames = [b"event: %b\ndata: %b\n\n" % (e["event_type"].encode(), _dump(e)) for e in events]
        return _Stream(_SSE, frames, b"event: done\ndata: [DONE]\n\n")

    def embed_batch(self) -> dict[str, Any]:
        return {"embeddings": [{"values": _VECTOR} for _ in (self.ask.document or {}).get("requests", [])]}

    def embed_openai(self) -> dict[str, Any]:
        usage = {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}
        data = [{"object": "embedding", "index": 0, "embedding": _VECTOR}]
        return {"object": "list", "data": data, "model": self.ask.model_name, "usage": usage}

    def _growing(self, event: Callable[[str, float], dict[str, Any]]) -> list[bytes]:
        return [_dump(event(part, n / len(self.parts))) for n, part in enumerate(self.parts, start=1)]

    def _content(self, text: str, done: float = 1.0) -> dict[str, Any]:
        output = int(ANSWER_TOKENS * done)
        candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        usage = {
            "promptTokenCount": self.prompt_tokens,
            "candidatesTokenCount": output,
            "totalTokenCount": self.prompt_tokens + output + THOUGHT_TOKENS,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": self.prompt_tokens}],
            "thoughtsTokenCount": THOUGHT_TOKENS,
        }
        return {
            "candidates": [candidate | ({"finishReason": "STOP"} if done == 1 else {})],
            "usageMetadata": usage,
            "modelVersion": self.ask.model_name,
            "responseId": "Qm9ndXMtcmVzcG9uc2U",
        }

    def _completion(
        self, text: str, done: float = 1.0, kind: str = "chat.completion", message: str = "message"
    ) -> dict[str, Any]:
        output = int(ANSWER_TOKENS * done)
        choice = {"index": 0, message: {"content": text, "role": "assistant"}}
        total = self.prompt_tokens + output + THOUGHT_TOKENS
        return {
            "choices": [choice | {"finish_reason": "stop" if done == 1 else None}],
            "created": int(time.time()),
            "id": "Qm9ndXMtcmVzcG9uc2U",
            "model": self.ask.model_name,
            "object": kind,
            "usage": {"completion_tokens": output, "prompt_tokens": self.prompt_tokens, "total_tokens": total},
        }


def _model(name: str) -> dict[str, Any]:
    return {"name": f"models/{name}", "supportedGenerationMethods": ["generateContent", "countTokens"]}


_ENDPOINTS: dict[str, Callable[[_Answers], dict[str, Any] | _Stream]] = {
    "POST generateContent": _Answers.generate,
    "POST streamGenerateContent": _Answers.stream,
    "POST countTokens": lambda answers: {"totalTokens": answers.prompt_tokens},
    "POST embedContent": lambda _: {"embedding": {"values": _VECTOR}},
    "POST batchEmbedContents": _Answers.embed_batch,
    "POST interactions": _Answers.interact,
    "POST openai/chat/completions": _Answers.chat,
    "POST openai/embeddings": _Answers.embed_openai,
    "GET openai/models": lambda _: {"object": "list", "data": [{"id": name} for name in _MODELS]},
    "GET models": lambda _: {"models": [_model(name) for name in _MODELS]},
    "GET models/*": lambda answers: _model(answers.ask.model_name),
}
# What counts against a quota: all that asks a model, but for the counting of tokens.
_GENERATIONS = {name for name in _ENDPOINTS if name.startswith("POST")} - {"POST countTokens"}


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024

    def __init__(self, gemini: FakeGemini) -> None:
        self.gemini = gemini
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", gemini.port), _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self.connections):
            with suppress(OSError):  # its thread was faster
                connection.shutdown(socket.SHUT_RDWR)  # wakes its thread, which then closes it

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def serve(self) -> None:
        gemini = self.server.gemini
        # Not self.path, which has lost a doubled slash.
        path, headers = self.requestline.split(" ")[1], self.headers.items()
        try:
            body = self._read_body()
        except ValueError:
            self.close_connection = True
            return
        self.released = gemini.released
        shown = _credentials_in(path, headers)
        secrets = [value for name in _GOOGLE_LOOKS_AT for place, value in shown if place == name]
        secret, credentials = secrets[0] if secrets else "", [value for _, value in shown]
        seen = Seen(self.command, path, headers, body, secret, credentials)
        ask = _read_ask(seen)
        fault, reply = gemini.take(seen, ask)
        try:
            if fault is Fault.HANG:
                self._wait(0.0, lambda: True)
            elif fault is Fault.RESET_BEFORE:
                self._reset()
            else:
                if gemini.first_byte_seconds or gemini.hold_heads:
                    self._wait(gemini.first_byte_seconds, lambda: gemini.is_holding_heads)
                answer = reply or _ENDPOINTS[ask.endpoint](_Answers(gemini, seen, ask))
                if isinstance(answer, _Stream):
                    self._send_stream(answer, fault)
                else:
                    self._send(answer if isinstance(answer, Reply) else Reply(200, answer), ask, fault)
        except ConnectionError:
            self.close_connection = True
            gemini.lose_client(self.released)

    def log_message(self, *args: Any) -> None:
        pass

    def _read_body(self) -> bytes:
        """Return the complete body. Raise ValueError if its framing is broken or it ends too early."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self._read_exactly(int(self.headers.get("Content-Length", "0")))
        pieces = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self._read_exactly(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(pieces)

    def _read_exactly(self, size: int) -> bytes:
        content = self.rfile.read(size)
        if len(content) < size:
            raise ValueError("The client left in the middle of its body.")
        return content

    def _accepts_gzip(self) -> bool:
        accepted = self.headers.get("Accept-Encoding", "").replace(" ", "").lower()
        return "gzip" in accepted and "gzip;q=0" not in accepted

    def _head(self, status: int, *layers: dict[str, str]) -> bytes:
        """Return the head of an answer. A header replaces one with the same name from an earlier layer."""
        fields = {"date": ("Date", self.date_time_string())}
        for layer in (_USUAL_HEADERS, *layers):
            fields |= {name.lower(): (name, value) for name, value in layer.items()}
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Odd"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in fields.values())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _send(self, reply: Reply, ask: _Ask, fault: Fault | None) -> None:
        headers = {"Content-Type": _SSE if ask.is_sse else _JSON}
        if isinstance(reply.body, bytes):
            content = reply.body
        else:
            is_array = ask.is_openai or (ask.endpoint == "POST streamGenerateContent" and not ask.is_sse)
            document = [reply.body] if is_array and reply.status >= 400 else reply.body
            content = json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
            if self._accepts_gzip() and not ask.is_sse:
                packer = zlib.compressobj(wbits=31)
                content = packer.compress(content) + packer.flush()
                headers["Content-Encoding"] = "gzip"
        if reply.status not in (204, 304):
            headers["Content-Length"] = str(len(content))
        head = self._head(reply.status, headers, dict(reply.headers))
        sent = b"" if self.command == "HEAD" else content[: len(content) // 2] if fault else content
        self.wfile.write(head + sent)
        if fault:
            self._reset()

    def _send_stream(self, stream: _Stream, fault: Fault | None) -> None:
        gemini = self.server.gemini
        packer = zlib.compressobj(wbits=31) if stream.content_type == _JSON and self._accepts_gzip() else None
        headers = {"Content-Type": stream.content_type, "Transfer-Encoding": "chunked"}
        headers |= {"Content-Disposition": "attachment"} | ({"Content-Encoding": "gzip"} if packer else {})
        self.wfile.write(self._head(200, headers))
        last = len(stream.events) - 1
        for number, event in enumerate(stream.events):
            if fault and number == (last + 2) // 2:
                break
            self._wait(gemini.pace if number else 0.0)
            if number == last:
                self._wait(0.0, lambda: gemini.is_holding)
            content = event if packer is None else packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
            frame = _chunk(content)
            if number == last and not fault:
                # In one write with the last event: a client that has read all it needs may leave at once.
                tail = stream.tail if packer is None else packer.compress(stream.tail) + packer.flush()
                frame += (_chunk(tail) if tail else b"") + b"0\r\n\r\n"
            self.wfile.write(frame)
        if fault:
            self._reset()

    def _wait(self, seconds: float, is_held: Callable[[], bool] = lambda: False) -> None:
        """Wait this long, and then while `is_held`. Raise ConnectionAbortedError if the client or the test is gone."""
        is_gone = self._has_hung_up(seconds)
        while not is_gone and is_held() and not self.released.is_set():
            is_gone = self._has_hung_up(_POLL_SECONDS)
        if is_gone or self.released.is_set():
            raise ConnectionAbortedError

    def _has_hung_up(self, seconds: float) -> bool:
        """Wait up to this many seconds for the client to close the connection, and tell whether it did."""
        poller = select.poll()  # not select(), which knows no more than 1024 file descriptors
        poller.register(self.connection, select.POLLIN)
        if not poller.poll(seconds * 1000):
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True

    def _reset(self) -> None:
        """Close with a TCP reset: without lingering, and with no reader left that would delay it."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()


for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
    setattr(_Connection, f"do_{_method}", _Connection.serve)  # where the base class looks


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def main() -> None:
    """Serve a fake Gemini API in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_gemini", description=main.__doc__)
    parser.add_argument("--port", type=int, default=9001)
    parser.add_argument("--chunks", type=int, default=3, help="events of a stream")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two events")
    options = parser.parse_args()
    with FakeGemini(options.port) as gemini:
        gemini.chunks, gemini.pace = options.chunks, options.pace
        sys.stdout.write(f"A fake Gemini API listens on {gemini.url}\n")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            Event().wait()


if __name__ == "__main__":
    main()
