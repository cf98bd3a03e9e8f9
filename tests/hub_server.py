"""A server on this machine that speaks as much of the Hugging Face Hub's API as pushing and loading a model needs."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # by hash, in order
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        content = repr(
            (len(self.commits), sorted((name, hashlib.sha256(each).hexdigest()) for name, each in files.items()))
        )
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.branches["main"]]


@dataclass
class Hub:
    """The state of the server, and how it misbehaves.

    Args:
        repos: the repositories by ``USER/NAME``.
        blobs: what was uploaded, by SHA-256.
        requests: what was asked for, as ``METHOD PATH``.
        served: other bytes than the listed ones, by the name of the file.
        answers: a status to answer with instead, by a pattern of the path.
        cut: files whose first download ends in the middle.
        more: entries to add to every listing.
    """

    url: str = ""
    repos: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    served: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    more: list[dict[str, Any]] = field(default_factory=list)

    def put(self, repo: str, files: dict[str, bytes], **options: Any) -> str:
        """Commit files as a stranger would, past every check of this library."""
        return self.repos.setdefault(repo, Repository(**options)).commit(files)


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    handler = type("HubHandler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".png", ".bin"))


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def oid(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if is_large(name) else blob(content)


def _listed(files: dict[str, bytes], key: str) -> list[dict[str, Any]]:
    entries = []
    for name, content in files.items():
        entry: dict[str, Any] = {key: name, "size": len(content)}
        entry |= {"blobId": blob(content)} if key == "rfilename" else {"oid": blob(content), "type": "file"}
        if is_large(name):
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"size": len(content), "pointerSize": 134, "sha256": sha256, "oid": sha256}
        entries.append(entry)
    return entries


class _Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True  # or each answer of two packets waits 40 ms for an acknowledgement
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._any()

    do_GET = do_POST = do_PUT = do_HEAD

    def _any(self) -> None:
        self.body = self._read()
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        for pattern, status in self.hub.answers.items():
            if re.search(pattern, path):
                return self._say({"error": "as the test wants"}, status)
        if path == "/api/repos/create":
            return self._create()
        if path == "/api/validate-yaml":
            return self._say({"errors": [], "warnings": []})
        if path.startswith("/lfs/"):
            self.hub.blobs[path.removeprefix("/lfs/")] = self.body
            return self._say({})
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree|preupload|commit)/(.+?))?/?", path)
        lfs = re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = api or lfs or file
        repo = self.hub.repos.get(match[1]) if match else None
        if match is None or repo is None or (repo.private and not self._known()):
            return self._missing("RepoNotFound", 404 if self._known() else 401)
        if lfs:
            return self._batch()
        if api and api[2] in ("preupload", "commit"):
            if not self._known():
                return self._say({"error": "Unauthorized"}, 401)
            return self._preupload(repo) if api[2] == "preupload" else self._commit(match[1], repo)
        wanted = (api[3] if api else match[2]) or "main"
        sha = repo.branches.get(wanted, wanted)
        if sha not in repo.commits:
            return self._missing("RevisionNotFound", 404)
        if file:
            return self._file(repo.commits[sha], sha, file[3])
        assert api
        if api[2] == "tree":
            return self._say(_listed(repo.commits[sha], "path"))
        siblings = _listed(repo.commits[sha], "rfilename") + self.hub.more
        return self._say({"id": api[1], "sha": sha, "private": repo.private, "siblings": siblings})

    def _create(self) -> None:
        if not self._known():
            return self._say({"error": "Unauthorized"}, 401)
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'ann'}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{name}", "name": name}
        if name in self.hub.repos:
            return self._say(url | {"error": "You already created this model repo"}, 409)
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.put(name, {".gitattributes": b""}, private=private)
        return self._say(url)

    def _preupload(self, repo: Repository) -> None:
        answers = []
        for path in [each["path"] for each in json.loads(self.body)["files"]]:
            answer = {"path": path, "uploadMode": "lfs" if is_large(path) else "regular", "shouldIgnore": False}
            if path in repo.files:
                answer["oid"] = oid(path, repo.files[path])
            answers.append(answer)
        self._say({"files": answers})

    def _batch(self) -> None:
        objects = json.loads(self.body)["objects"]
        actions = [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}", "header": {}}}}
            for each in objects
        ]
        self._say({"transfer": "basic", "objects": actions})

    def _commit(self, name: str, repo: Repository) -> None:
        files = dict(repo.files)
        for line in self.body.splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif part["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(files)
        self._say({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    def _file(self, files: dict[str, bytes], sha: str, name: str) -> None:
        if name not in files:
            return self._missing("EntryNotFound", 404)
        listed, content = files[name], self.hub.served.get(name, files[name])
        etag = oid(name, listed)
        span = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(span[1]) if span else 0
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if span:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if name in self.hub.cut and self.command == "GET":
            self.hub.cut.discard(name)
            self._head(206 if span else 200, headers, len(content) - start)
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.close_connection = True
            return None
        self._head(206 if span else 200, headers, len(content) - start)
        if self.command == "GET":
            self.wfile.write(content[start:])
        return None

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _missing(self, code: str, status: int) -> None:
        self._say({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def _say(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(content).encode()
        self._head(status, {"Content-Type": "application/json", **(headers or {})}, len(text))
        if self.command != "HEAD":
            self.wfile.write(text)

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))
