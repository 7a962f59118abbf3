"""What the projects of the fake Gemini API own: files, caches, batches, stores and interactions.

As at Google, a resource belongs to the project of the key that made it, and the keys of other projects get 403 or 404.
"""

import hashlib
import itertools
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote

from tests import gemini_errors as errors
from tests.gemini_errors import Reply

_HOME = "https://generativelanguage.googleapis.com"
_REFERENCES = re.compile(
    rb'"(?:fileUri|file_uri|uri|fileName|file_name|cachedContent|cached_content|input_file_id|previous_interaction_id)"'
    rb'\s*:\s*"([^"]+)"'
)
_STORES = re.compile(rb'"(?:fileSearchStoreNames|file_search_store_names)"\s*:\s*\[([^\]]+)\]')
_CREATIONS = {"cachedContents", "fileSearchStores", "auth_tokens", "batches"}
_OWNED = {*_CREATIONS, "files", "interactions"}
_LONG_RUNNING = {"batchGenerateContent": "batches/{}", "asyncBatchEmbedContent": "batches/{}"}


@dataclass
class _Upload:
    project: str
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class ProjectResources:
    """Makes, finds and deletes resources. Call it with the lock of the fake held."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, _Upload] = {}
        self._numbers = itertools.count(1)

    def answer(self, project: str, method: str, raw_path: str, headers: dict[str, str], body: bytes) -> Reply | None:
        """Return the answer to a request about resources, or the refusal of one that names those of another project."""
        path, _, query = raw_path.partition("?")
        parts = [part for part in unquote(path).split("/") if part]
        if parts[:1] == ["upload"]:
            return self._upload(project, parse_qs(query), headers, body)
        is_openai = parts[1:2] == ["openai"]
        parts = parts[2 if is_openai else 1 :]
        if refusal := self._refused_reference(project, body):
            return refusal
        collection, _, action = (parts[-1] if parts else "").partition(":")
        if method == "POST" and parts[:1] == ["models"] and action in (*_LONG_RUNNING, "predictLongRunning"):
            pattern = _LONG_RUNNING.get(action, f"models/{collection}/operations/{{}}")
            return Reply(200, self.make(project, pattern))
        if method == "POST" and len(parts) == 1 and collection in _CREATIONS and not action:
            document = self.make(project, f"{collection}/{{}}")
            return Reply(200, _for_openai(document) if is_openai else document)
        name = "/".join(parts[:4] if parts[2:3] == ["operations"] else parts[:2]).partition(":")[0]
        if name in self.owners or (len(parts) > 1 and parts[0] in _OWNED):
            return self._existing(project, method, name, is_openai=is_openai)
        if method == "GET" and collection in _OWNED:
            mine = [self.documents[name] for name, owner in self.owners.items() if owner == project]
            if is_openai:
                data = [_for_openai(one) for one in mine if one["name"].startswith(f"{collection}/")]
                return Reply(200, {"object": "list", "data": data, "has_more": False})
            return self._page([one for one in mine if one["name"].startswith(f"{collection}/")], collection, query)
        return None

    @staticmethod
    def _page(everything: list[dict[str, Any]], collection: str, query: str) -> Reply:
        asked = parse_qs(query)
        begin, size = int(asked.get("pageToken", ["0"])[0]), int(asked.get("pageSize", ["10"])[0])
        page: dict[str, Any] = {collection: everything[begin : begin + size]} if everything else {}
        if begin + size < len(everything):
            page["nextPageToken"] = str(begin + size)
        return Reply(200, page)

    def make(self, project: str, pattern: str, **more: Any) -> dict[str, Any]:
        """Create a resource, whose number replaces {} in its name, and return its document."""
        name = pattern.format(f"r{next(self._numbers)}")
        self.owners[name] = project
        self.documents[name] = {"name": name, **more}
        return self.documents[name]

    def _existing(self, project: str, method: str, name: str, *, is_openai: bool) -> Reply:
        if self.owners.get(name) != project:
            return _not_found(name)
        if method == "DELETE":
            del self.owners[name]
            return Reply(200, {})
        document = self.documents[name]
        return Reply(200, _for_openai(document) if is_openai else document)

    def _refused_reference(self, project: str, body: bytes) -> Reply | None:
        texts = [text.decode() for text in _REFERENCES.findall(body)]
        for stores in _STORES.findall(body):
            texts += [text.decode() for text in re.findall(rb'"([^"]+)"', stores)]
        for text in texts:
            name = "/".join(text.split("/")[-2:])
            for candidate in (name, f"interactions/{text}", f"files/{text}"):
                if candidate in self.owners and self.owners[candidate] != project:
                    return _not_found(candidate)
            if name.startswith("files/") and name not in self.owners:
                return _not_found(name)
        return None

    def _upload(self, project: str, query: dict[str, list[str]], headers: dict[str, str], body: bytes) -> Reply:
        command = headers.get("x-goog-upload-command", "")
        if command == "start":
            upload_id = f"upload-{next(self._numbers)}"
            self.uploads[upload_id] = _Upload(project)
            url = f"{_HOME}/upload/v1beta/files?upload_id={upload_id}&upload_protocol=resumable"
            sent = {"X-Goog-Upload-Status": "active", "X-Goog-Upload-URL": url, "X-Goog-Upload-Control-URL": url}
            return Reply(200, b"", {"Content-Type": "text/plain", **sent})
        upload = self.uploads.get(query.get("upload_id", [""])[0])
        if upload is None or upload.project != project:
            return errors.not_found()
        upload.size += len(body)
        upload.digest.update(body)
        if "finalize" not in command:
            return Reply(200, b"", {"Content-Type": "text/plain", "X-Goog-Upload-Status": "active"})
        expires = datetime.now(UTC) + timedelta(hours=48)
        file = self.make(
            project,
            "files/{}",
            sizeBytes=str(upload.size),
            sha256Hash=upload.digest.hexdigest(),
            state="ACTIVE",
            mimeType=headers.get("x-goog-upload-header-content-type", "text/plain"),
            expirationTime=expires.isoformat().replace("+00:00", "Z"),
        )
        file["uri"] = f"{_HOME}/v1beta/{file['name']}"
        return Reply(200, {"file": file}, {"X-Goog-Upload-Status": "final"})


def _for_openai(document: dict[str, Any]) -> dict[str, Any]:
    return {"id": document["name"], "object": "batch", "status": "validating"}


def _not_found(name: str) -> Reply:
    if name.startswith("files/"):
        words = f"You do not have permission to access the File {name[6:]} or it may not exist."
        return errors.error(403, "PERMISSION_DENIED", words)
    if name.startswith("cachedContents/"):
        return errors.error(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)")
    return errors.not_found()
