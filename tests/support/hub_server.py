"""A server on this machine that plays the Hub for the real huggingface_hub client.

It knows the routes that downloading a snapshot and pushing small files need, several commits per
repository, private repositories, and ways in which a download can go wrong.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"


@dataclass
class Repository:
    """Commits of one repository: names of revisions, and the files of each commit."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """Files that are sent "cut" off, or "changed"."""

    def commit(self, files: dict[str, bytes], *names: str) -> str:
        digest = hashlib.sha1(b"".join(files.values()), usedforsecurity=False)
        digest.update(str(len(self.commits)).encode())
        self.commits[digest.hexdigest()] = dict(files)
        for name in ("main", *names):
            self.revisions[name] = digest.hexdigest()
        return digest.hexdigest()

    def find(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.revisions.get(revision)


@dataclass
class Hub:
    """All repositories, and what was asked of the server."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()
    handler = type("BoundHandler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        if path.startswith("/api/models/"):
            parts = path.removeprefix("/api/models/").split("/")
            repository = self._repository("/".join(parts[:2]))
            if repository is not None:
                route, revision = parts[2:4] if len(parts) > 3 else ("revision", "main")
                folder = "/".join(parts[4:])
                self._describe("/".join(parts[:2]), repository, route, revision, folder)
            return
        name, _, rest = path.lstrip("/").partition("/resolve/")
        repository = self._repository(name)
        if repository is not None:
            revision, _, file = rest.partition("/")
            self._send_file(repository, revision, file)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(("POST", path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._is_owner():
            self._error(401, None, "Invalid credentials in Authorization header")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self._json(
                {
                    "files": [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in files
                    ]
                }
            )
        elif "/commit/" in path:
            self._commit(path, body)
        else:
            self._json({"errors": [], "warnings": []})

    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None after an answer that there is none to read."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._is_owner()):
            # The Hub does not tell a stranger whether a private repository exists.
            self._error(401, "RepoNotFound", "Repository not found")
            return None
        return repository

    def _describe(
        self, name: str, repository: Repository, route: str, revision: str, folder: str
    ) -> None:
        commit = repository.find(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = repository.commits[commit]
        if folder:
            files = {path: files[path] for path in files if path.startswith(f"{folder}/")}
        if not files and folder:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        if route == "tree":
            self._json([_tree_entry(path, content) for path, content in files.items()])
            return
        siblings = [{"rfilename": file} for file in files]
        self._json({"id": name, "modelId": name, "sha": commit, "siblings": siblings})

    def _send_file(self, repository: Repository, revision: str, file: str) -> None:
        commit = repository.find(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        content = repository.commits[commit].get(file)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        digest = hashlib.sha256(content).hexdigest()
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        wrong = repository.broken.get(file)
        if wrong == "changed":
            content = content[:-4] + bytes(byte ^ 1 for byte in content[-4:])
        if wrong == "cut":
            content = content[: len(content) // 2]
            self.close_connection = True
        self.wfile.write(content)

    def _create(self, wanted: dict[str, Any]) -> None:
        name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        name = name if "/" in name else f"owner/{name}"
        if name not in self.hub.repositories:
            self.hub.repositories[name] = Repository(
                private=wanted.get("visibility") == "private" or bool(wanted.get("private"))
            )
            self.hub.repositories[name].commit({})
        self._json({"url": f"{self.hub.address}/{name}", "name": name})

    def _commit(self, path: str, body: bytes) -> None:
        name, _, revision = path.removeprefix("/api/models/").partition("/commit/")
        repository = self.hub.repositories[name]
        files = dict(repository.commits[repository.revisions["main"]])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            if entry["key"] == "deletedFile":
                del files[entry["value"]["path"]]
        commit = repository.commit(files, revision)
        url = f"{self.hub.address}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _json(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str | None, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _tree_entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    entry["oid"] = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    if path.endswith(".safetensors"):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    return entry
