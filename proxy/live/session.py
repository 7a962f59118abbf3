"""One session of the Live API, from the client's first message to the end. No Django.

The client has been told that it may begin, since only its first message names the model. We claim a key, connect to
Google, and send that message. If Google closes the connection before it answers, because a limit is reached or the key
is rejected, we fail over to the next key. From Google's first message on, the session is relayed: what the client sends
as it is, what Google sends frame by frame, to read token counts and to mask the key in what it says at the end.
"""

import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from proxy.attempt import LOST, fails_over
from proxy.gemini.refusals import message_in
from proxy.gemini.resources import expiries_of, resources_in_body, session_in
from proxy.gemini.tokens import NO_TOKENS, Tokens, estimate_input_tokens, tokens_in_message
from proxy.journey import Journey
from proxy.ledger import Ledger
from proxy.ledger.claims import Claim, Learned, UnknownResource
from proxy.ledger.history import CLIENT_LEFT
from proxy.live import frames
from proxy.live.frames import Frame, FrameReader, TooLarge, close_frame
from proxy.resources import find_owner
from proxy.security.masking import mask_bytes
from proxy.upstream.exchange import Call, Upstream, UpstreamAnswer, UpstreamUnreachable
from proxy.upstream.http1 import BrokenAnswer

logger = logging.getLogger(__name__)

SWITCHING = 101
_PIECE = 65_536
_LONGEST_SETUP = 1_048_576
_LONGEST_FRAME = 67_108_864
_MASK = b"\0\0\0\0"  # of our own close frames; masks protect against what clients can choose, and these say nothing
_QUOTA = re.compile(r"quota|resource.?exhausted|rate.?limit", re.IGNORECASE)


class SessionRefused(Exception):
    """The client gets a close frame with this code and reason."""

    def __init__(self, code: int, reason: str, status: int) -> None:
        super().__init__(reason)
        self.code = code
        self.status = status


class Session:
    """A session. `bytes_of_answer` runs it.

    explain: returns what a client is told about an exception.
    """

    # Of this process.
    running: "set[Session]" = set()

    def __init__(
        self,
        call: Call,
        client: socket.socket,
        *,
        ledger: Ledger,
        upstream: Upstream,
        journey: Journey,
        setup_seconds: float,
        explain: Callable[[Exception], str],
    ) -> None:
        self._call = call
        self._client = client
        self._ledger, self._upstream, self._journey = ledger, upstream, journey
        self._setup_seconds = setup_seconds
        self._explain = explain
        self._google: socket.socket | None = None
        # Held while a frame is sent to the client.
        self._sending = threading.Lock()
        # Google has answered.
        self._has_begun = False
        # The client has had a close frame.
        self._has_ended = False
        # The service is stopping.
        self.is_leaving = False
        self._tokens = NO_TOKENS

    def bytes_of_answer(self) -> Iterator[bytes]:
        """Run the session as the body of the answer: the server sends the head, and the rest happens on the socket."""
        yield b""
        Session.running.add(self)
        status = SWITCHING
        try:
            self._run()
        except SessionRefused as refused:
            status = refused.status
            self._end(refused.code, str(refused))
        except OSError:  # the client is gone
            status = SWITCHING if self._has_begun else CLIENT_LEFT
        except Exception as exc:
            status = 503
            self._end(frames.TRY_AGAIN_LATER, self._explain(exc))
        finally:
            Session.running.discard(self)
            for sock in (self._client, self._google):
                if sock is not None:
                    with suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
            if self._google is not None:
                self._google.close()
            self._journey.end(self._call, status, self._ledger, tokens=self._tokens)

    def go_away(self) -> None:
        """End the session, since the service is stopping."""
        self._end(frames.GOING_AWAY, "The key manager is restarting.")
        if self._google is not None:
            with suppress(OSError):
                self._google.sendall(close_frame(frames.GOING_AWAY, mask=_MASK))
                self._google.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_RD)

    def _run(self) -> None:
        setup, sent = self._read_setup()
        resumed = session_in(setup, "setup", "sessionResumption", "handle")
        self._call = replace(
            self._call,
            model_name=_model_in(setup),
            input_tokens=estimate_input_tokens(setup),
            resources=self._call.resources | resources_in_body(setup) | ({resumed} if resumed else set()),
        )
        while self._journey.has_time:
            try:
                claim = self._journey.next_claim(self._call, self._ledger)
            except UnknownResource as unknown:
                find_owner(unknown.name, self._ledger, self._upstream, self._journey)
                continue
            reader = FrameReader(_LONGEST_FRAME)
            if begun := self._begin(claim, sent, reader):
                self._journey.note_answer(SWITCHING)
                self._ledger.book_answer(claim, SWITCHING)
                self._has_begun = True
                try:
                    self._relay(claim, *begun, reader)
                finally:
                    self._ledger.book_tokens(claim, self._tokens)
                return
        raise SessionRefused(frames.TRY_AGAIN_LATER, "The session could not begin in time.", 504)

    def _read_setup(self) -> tuple[bytes, bytes]:
        """Return the client's first message, and all that it has sent."""
        reader, sent, message = FrameReader(_LONGEST_SETUP), b"", b""
        self._client.settimeout(self._setup_seconds)
        try:
            while received := self._client.recv(_PIECE):
                sent += received
                for frame in reader.feed(received):
                    if frame.opcode == frames.CLOSE:
                        raise SessionRefused(frame.close_code, "", 400)
                    message += frame.payload if frame.is_data else b""
                    if frame.is_data and frame.is_last:
                        self._client.settimeout(None)
                        return message, sent
                if len(sent) > _LONGEST_SETUP:
                    break
        except TooLarge:
            raise SessionRefused(frames.TOO_LARGE, "The first message is too large.", 413) from None
        except TimeoutError:
            raise SessionRefused(frames.PROTOCOL_ERROR, "The first message did not arrive in time.", 408) from None
        if len(sent) > _LONGEST_SETUP:
            raise SessionRefused(frames.TOO_LARGE, "The first message is too large.", 413)
        raise ConnectionResetError

    def _begin(self, claim: Claim, sent: bytes, reader: FrameReader) -> tuple[socket.socket, list[Frame]] | None:
        """Connect to Google and send what the client has sent. Return the connection, and what comes first on it.

        Returns None when the next key should be tried.
        """
        try:
            opened = self._upstream.open_websocket(self._call, claim.secret)
        except UpstreamUnreachable:
            self._ledger.give_back(claim)
            raise
        if isinstance(opened, UpstreamAnswer):
            opened.close()
            self._note_refusal(claim, opened.status, opened.content, frames.INTERNAL_ERROR)
            return None
        google, received = opened
        self._google = google
        try:
            google.sendall(sent)
            found = _first_frames(google, received, reader)
            google.settimeout(None)
        except OSError as exc:
            self._journey.note_answer(LOST)
            self._ledger.book_answer(claim, LOST)
            logger.warning("The Live API did not answer: %s", exc)
            raise SessionRefused(frames.INTERNAL_ERROR, "The Gemini API closed the connection.", 502) from exc
        except BaseException:  # the worker stops while Google is working
            self._ledger.book_answer(claim, LOST)
            raise
        if found[-1].opcode == frames.CLOSE:
            google.close()
            self._google = None
            self._note_refusal(claim, *_error_in(found[-1]), found[-1].close_code)
            return None
        return google, found

    def _note_refusal(self, claim: Claim, status: int, content: bytes, code: int) -> None:
        """Book why Google refused a session. Raises SessionRefused if another key would not help."""
        self._journey.note_answer(status)
        # An ephemeral token says nothing about the key that made it.
        if not self._call.ephemeral_token and fails_over(claim, status, content, self._ledger, self._journey):
            return
        self._ledger.book_answer(claim, status)
        message = message_in(mask_bytes(content, claim.secret.encode()))
        raise SessionRefused(code, message, status)

    def _relay(self, claim: Claim, google: socket.socket, found: list[Frame], reader: FrameReader) -> None:
        for sock in (google, self._client):
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        threading.Thread(target=_pump, args=(self._client, google), name="live", daemon=True).start()
        try:
            while True:
                for frame in found:
                    self._hand_on(claim, frame)
                if not (received := google.recv(_PIECE)):
                    break
                found = list(reader.feed(received))
        except TooLarge:
            self._end(frames.TOO_LARGE, "A message from the Gemini API is too large.")
        except OSError:
            pass
        self._end(frames.INTERNAL_ERROR, "The Gemini API closed the connection.")

    def _hand_on(self, claim: Claim, frame: Frame) -> None:
        if frame.opcode == frames.CLOSE:
            reason = mask_bytes(frame.close_reason.encode(), claim.secret.encode()).decode()
            self._end(frame.close_code, reason)
            return
        if frame.is_data and b"usageMetadata" in frame.payload:
            self._tokens = Tokens(*map(sum, zip(self._tokens, tokens_in_message(frame.payload), strict=True)))
        if frame.is_data and b"newHandle" in frame.payload:
            self._remember_handle(claim, frame.payload)
        with self._sending:
            self._client.sendall(frame.raw)

    def _remember_handle(self, claim: Claim, message: bytes) -> None:
        """Store which key can resume the session, before the client knows how."""
        if name := session_in(message, "sessionResumptionUpdate", "newHandle"):
            expiries = expiries_of([name], [], self._ledger.moment())
            self._ledger.remember(claim, Learned(expiries))

    def _end(self, code: int, reason: str) -> None:
        """Send a close frame to the client, unless it has had one."""
        with self._sending, suppress(OSError):
            if not self._has_ended:
                self._has_ended = True
                self._client.sendall(close_frame(1000 if code == 1005 else code, reason))


def end_all() -> None:
    """End all sessions of this process, since it is stopping. Does not wait for slow clients."""
    for session in list(Session.running):
        if not session.is_leaving:
            session.is_leaving = True
            threading.Thread(target=session.go_away, name="live-end", daemon=True).start()


def _first_frames(google: socket.socket, received: bytes, reader: FrameReader) -> list[Frame]:
    """Return the frames up to the first message or the end. Raises OSError."""
    found: list[Frame] = []
    while True:
        for frame in reader.feed(received):
            found.append(frame)
            if frame.opcode == frames.CLOSE:
                return found
        if any(frame.is_data for frame in found):
            return found
        if not (received := google.recv(_PIECE)):
            raise BrokenAnswer("The connection was closed before the first message.")


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Send on whatever arrives. When the client is gone, the session is over."""
    with suppress(OSError):
        while received := source.recv(_PIECE):
            target.sendall(received)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def _model_in(setup: bytes) -> str:
    try:
        name = json.loads(setup)["setup"]["model"]
    except (ValueError, KeyError, TypeError, RecursionError):
        name = None
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.removeprefix("models/")) <= 200:
        raise SessionRefused(frames.PROTOCOL_ERROR, 'The first message must be {"setup": {"model": …}}.', 400)
    return name.removeprefix("models/")


def _error_in(frame: Frame) -> tuple[int, bytes]:
    """Return a close frame as the status and body of an HTTP error."""
    reason = frame.close_reason
    return 429 if _QUOTA.search(reason) else 403, json.dumps({"error": {"message": reason}}).encode()
