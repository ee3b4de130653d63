"""A Hugging Face Hub on the loopback interface: the endpoints that Stockpot uses, and no others."""

import hashlib
import json
import threading
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_FROM = 1000  # bytes from which a file is an LFS object
SIGNATURE = "X-Signature=very-secret-signature"

Files = Mapping[str, bytes]


@dataclass
class Repo:
    """A repository: the files of each commit, and the commit of each branch."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str) -> str:
        """Add a commit on a branch, and return its id."""
        new = dict(self.commits.get(self.branches.get(branch, ""), {})) | dict(files)
        text = json.dumps([branch, len(self.commits), sorted(new)])
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = new
        self.branches[branch] = sha
        return sha


@dataclass
class LoopbackHub:
    """The Hub.

    Attributes:
        repos: The repositories by name.
        token: The only valid token.
        cut_after: Number of bytes after which each answer with a file is cut off; None for never.
        sent: Bytes of files sent so far, by path.
        requests: Method and path of each request so far.
        uploaded: The files uploaded so far, by their SHA-256.
        refuses_uploads: Whether the place for uploads refuses them.
        busy: Number of uploads that it still answers with 503, so that they are tried again.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    token: str = "hf_valid_token"  # noqa: S105
    cut_after: int | None = None
    sent: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    refuses_uploads: bool = False
    busy: int = 0
    url: str = ""

    def commit(
        self, repo: str, files: Files, branch: str = "main", *, private: bool = False
    ) -> str:
        """Add a commit to a repository, which is created if it is new; return its id."""
        return self.repos.setdefault(repo, Repo(private)).commit(files, branch)


@contextmanager
def running(hub: LoopbackHub) -> Iterator[LoopbackHub]:
    """Serve the Hub until the context exits."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _route(self) -> None:
        url = urlsplit(self.path)
        self.hub.requests.append(f"{self.command} {url.path}")
        body = self._body()
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[0] == "cdn":  # like that of the Hub, it knows no tokens
            if "Authorization" in self.headers or SIGNATURE not in url.query:
                self._json({"error": "signature"}, 403)
            else:
                self._file(self._of_digest(parts[1]), parts[2])
            return
        if parts[0] == "upload":
            if self.hub.refuses_uploads or SIGNATURE not in url.query:
                self._json({}, 403)
            elif self.hub.busy:
                self.hub.busy -= 1
                self._json({}, 503)
            else:
                self.hub.uploaded[parts[1]] = body
                self._json({})
            return
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {self.hub.token}"):
            message = "Invalid credentials in Authorization header"
            self._json({"error": message}, 401, {"X-Error-Message": message})
            return
        if parts[:2] in (["api", "validate-yaml"], ["api", "repos"]):
            self._create(parts, json.loads(body), given)
            return
        name = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
        repo = self.hub.repos.get(name.removesuffix(".git"))
        if repo is None or (repo.private and given is None):
            self._json({"error": "no repo"}, 401, {"X-Error-Code": "RepoNotFound"})
        elif "objects" in parts:
            self._batch(json.loads(body))
        elif parts[0] == "api":
            self._api(repo, name, parts[4:], body, given)
        else:
            self._resolve(repo, parts[3], "/".join(parts[4:]))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _api(self, repo: Repo, name: str, parts: list[str], body: bytes, given: str | None) -> None:
        kind, revision = (*parts, "revision", "main")[:2] if parts else ("revision", "main")
        if kind == "refs":
            refs = [
                {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": sha}
                for branch, sha in repo.branches.items()
            ]
            self._json({"branches": refs, "tags": [], "converts": [], "pullRequests": []})
            return
        if kind in ("preupload", "commit") and given is None:
            self._json({"error": "forbidden"}, 403)
            return
        if kind == "preupload":
            files = json.loads(body)["files"]
            self._json(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "regular"
                            if file["path"].endswith((".json", ".md"))
                            else "lfs",
                            "shouldIgnore": False,
                        }
                        for file in files
                    ]
                }
            )
            return
        if kind == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            new = {}
            for line in lines:
                value = line["value"]
                if line["key"] == "file":
                    new[value["path"]] = b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    new[value["path"]] = self.hub.uploaded[value["oid"]]
            sha = repo.commit(new, revision)
            link = f"{self.hub.url}/{name}/commit/{sha}"
            self._json({"success": True, "commitOid": sha, "commitUrl": link, "hookOutput": ""})
            return
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            self._json({"error": "no revision"}, 404, {"X-Error-Code": "RevisionNotFound"})
        elif kind == "revision":
            self._json({"id": name, "modelId": name, "sha": sha, "siblings": [], "tags": []})
        else:
            self._json([_entry(path, content) for path, content in repo.commits[sha].items()])

    def _resolve(self, repo: Repo, revision: str, path: str) -> None:
        sha = repo.branches.get(revision, revision)
        content = repo.commits.get(sha, {}).get(path)
        if content is None:
            self._json({"error": "no entry"}, 404, {"X-Error-Code": "EntryNotFound"})
        elif len(content) >= LFS_FROM:
            self.send_response(302)
            name = path.rpartition("/")[2]
            self.send_header(
                "Location", f"{self.hub.url.replace('127.0.0.1', 'localhost')}/cdn/"
                f"{_sha256(content)}/{name}?{SIGNATURE}"
            )  # fmt: skip
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._file(content, path)

    def _of_digest(self, digest: str) -> bytes:
        return next(
            content
            for repo in self.hub.repos.values()
            for files in repo.commits.values()
            for content in files.values()
            if _sha256(content) == digest
        )

    def _file(self, content: bytes, name: str) -> None:
        start, stop = 0, len(content)
        asked = self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else stop, stop)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        part = content[start:stop]
        if self.hub.cut_after is not None and len(part) > self.hub.cut_after:
            part = part[: self.hub.cut_after]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(part)
            self.hub.sent[name] = self.hub.sent.get(name, 0) + len(part)

    def _create(self, parts: list[str], body: Any, given: str | None) -> None:
        if parts[1] == "validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif given is None:
            self._json({"error": "log in"}, 403)
        else:
            name = f"{body.get('organization', 'me')}/{body['name']}"
            if name in self.hub.repos:
                self._json({"url": f"{self.hub.url}/{name}"}, 409)
                return
            self.hub.commit(
                name, {}, private=body.get("visibility") == "private" or bool(body.get("private"))
            )
            self._json({"url": f"{self.hub.url}/{name}"})

    def _batch(self, body: Any) -> None:
        place = f"{self.hub.url}/upload"
        objects = [
            each | {"actions": {"upload": {"href": f"{place}/{each['oid']}?{SIGNATURE}"}}}
            for each in body["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _json(self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": _blob(content),
    }
    if len(content) >= LFS_FROM:
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
    return entry
