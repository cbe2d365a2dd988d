"""A hub of our own: the routes that huggingface_hub's client asks when it makes a repository and commits to it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeHub:
    """`files` are what the repository holds after all commits; `asked` are method and path of all requests, and `says`
    gives a path another answer: (status, message)."""

    endpoint: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    created: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    says: dict[str, tuple[int, str]] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if path in self.says:
            status, text = self.says[path]
            return status, {"error": text, "url": f"{self.endpoint}/me/countdown"}
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return 200, {"url": f"{self.endpoint}/me/countdown"}
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            return 200, {"errors": [], "warnings": []}
        if path == "/api/models/me/countdown/preupload/main":
            return 200, {"files": [self.mode(file["path"]) for file in json.loads(body)["files"]]}
        if path == "/me/countdown.git/info/lfs/objects/batch":
            return 200, {"objects": [self.upload(file) for file in json.loads(body)["objects"]]}
        if method == "PUT":
            self.stored[path.rpartition("/")[2]] = body
            return 200, {}
        if path == "/api/models/me/countdown/commit/main":
            self.commit([json.loads(line) for line in body.splitlines()])
            return 200, {"commitUrl": f"{self.endpoint}/me/countdown/commit/abc", "commitOid": "abc"}
        return 404, {"error": f"no such route: {method} {path}"}

    def mode(self, path: str) -> dict[str, Any]:
        large = path.endswith((".safetensors", ".png"))
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def upload(self, file: dict[str, Any]) -> dict[str, Any]:
        return {**file, "actions": {"upload": {"href": f"{self.endpoint}/store/{file['oid']}"}}}

    def commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                content = self.stored[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                self.files[value["path"]] = content


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """One that listens on a free port of this machine."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b"".join(self.chunks())
            if self.command == "POST":  # an upload's address is its own permission
                hub.tokens.add(self.headers.get("Authorization"))
            status, said = hub.answer(self.command, self.path.partition("?")[0], body)
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        do_GET = do_POST = do_PUT = do_HEAD = reply

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
