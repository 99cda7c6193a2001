"""A server that speaks the hub's HTTP, as far as huggingface_hub uses it to publish and to download models."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from tests.hub.repositories import Repository, ignored, mode, oid, tree_item

OWNER, READER = "hf_owner", "hf_reader"
"""Tokens: OWNER may write all repositories, and has accepted all terms; READER may read public ones."""


class Hub:
    """The state of the server, and the faults that a test asks for.

    Attributes:
        url: its endpoint.
        repositories, stored: repositories by hub id, large files by SHA-256.
        requests: method and path of each request.
        uploads: SHA-256 of each large file that was received whole.
        on_upload: called before a large file is received; what it returns is the answer's status, None to receive it, and 0 to
            drop the connection.
        on_commit: called before a commit is made.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.uploads: list[str] = []
        self.on_upload: Callable[[str], int | None] = lambda sha: None
        self.on_commit: Callable[[Repository], object] = lambda repository: None


class Answer(Exception):  # noqa: N818
    """An answer that ends the handling of a request."""

    def __init__(self, status: int, body: object = None, headers: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, headers or {}
        self.body = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()


def error(status: int, code: str = "", message: str = "") -> Answer:
    headers = {name: value for name, value in {"X-Error-Code": code, "X-Error-Message": message}.items() if value}
    return Answer(status, {"error": message or code}, headers)


class Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.unread = int(self.headers.get("Content-Length") or 0)
        try:
            self.route(path)
            raise error(404, message="Not found")
        except Answer as answer:
            self.read()
            if answer.status == 0:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def read(self) -> bytes:
        chunks = []
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            del self.headers["Transfer-Encoding"]
        count, self.unread = self.unread, 0
        return b"".join(chunks) + self.rfile.read(count)

    def json(self) -> Any:
        return json.loads(self.read())

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def writer(self) -> None:
        if self.token != OWNER:
            raise error(403 if self.token else 401, message="You don't have the rights")

    def repository(self, name: str) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.token != OWNER):
            raise error(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return found

    def commit_of(self, found: Repository, revision: str) -> str:
        if (commit := found.find(revision)) is None:
            raise error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def route(self, path: str) -> None:
        words = path.strip("/").split("/")
        match words:
            case ["api", "repos", "create"]:
                self.create()
            case ["api", "validate-yaml"]:
                raise Answer(200, {"errors": [], "warnings": []})
            case ["api", "models", owner, name, *rest]:
                self.api(f"{owner}/{name}", rest)
            case [owner, name, "info", "lfs", "objects", "batch"]:
                self.writer()
                self.batch(f"{owner}/{name}".removesuffix(".git"))
            case ["lfs", sha]:
                self.receive(sha)
            case [owner, name, "resolve", revision, *file]:
                self.download(self.repository(f"{owner}/{name}"), revision, "/".join(file))

    def create(self) -> None:
        self.writer()
        asked = self.json()
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            raise error(409, message="You already created this model repo")
        self.hub.repositories[name] = Repository(private=asked.get("visibility") == "private" or asked.get("private", False))
        raise Answer(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def api(self, name: str, rest: list[str]) -> None:
        found = self.repository(name)
        match rest:
            case [] | ["revision", *_]:
                commit = self.commit_of(found, "/".join(rest[1:]) or "main")
                siblings = [{"rfilename": path} for path in found.files[commit]]
                info = {"id": name, "private": found.private, "gated": "manual" if found.gated else False}
                raise Answer(200, {**info, "sha": commit, "siblings": siblings})
            case ["refs"]:
                heads = [{"name": each, "ref": f"refs/heads/{each}", "targetCommit": at} for each, at in found.branches.items()]
                tags = [{"name": each, "ref": f"refs/tags/{each}", "targetCommit": at} for each, at in found.tags.items()]
                raise Answer(200, {"branches": heads, "tags": tags, "converts": []})
            case ["tree", *revision]:
                files = found.files[self.commit_of(found, "/".join(revision))]
                raise Answer(200, [tree_item(*each) for each in files.items()])
        self.writer()
        match rest:
            case ["branch", *branch]:
                self.branch(found, "/".join(branch))
            case ["preupload", *revision]:
                self.preupload(found.files[self.commit_of(found, "/".join(revision))])
            case ["commit", *branch]:
                self.commit(name, found, "/".join(branch))

    def branch(self, found: Repository, name: str) -> None:
        if self.command == "DELETE":
            del found.branches[name]
        elif name in found.branches:
            raise error(409, message="Reference already exists")
        else:
            found.branches[name] = self.commit_of(found, self.json().get("startingPoint", "main"))
        raise Answer(200)

    def preupload(self, there: dict[str, bytes]) -> None:
        asked = self.json()
        gitignore = asked.get("gitIgnore", there.get(".gitignore", b"").decode())
        files = [
            {
                "path": path,
                "uploadMode": mode(path),
                "shouldIgnore": ignored(path, gitignore),
                "oid": oid(path, there[path]) if path in there else None,
            }
            for path in (file["path"] for file in asked["files"])
        ]
        raise Answer(200, {"files": files})

    def batch(self, name: str) -> None:
        self.repository(name)
        objects = []
        for each in self.json()["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}", "header": {}}}
            objects.append(each | ({} if each["oid"] in self.hub.stored else {"actions": upload}))
        raise Answer(200, {"transfer": "basic", "objects": objects})

    def receive(self, sha: str) -> None:
        if (status := self.hub.on_upload(sha)) is not None:
            raise Answer(status)
        content = self.read()
        if hashlib.sha256(content).hexdigest() != sha:
            raise error(400, message="the digest differs")
        self.hub.stored[sha] = content
        self.hub.uploads.append(sha)
        raise Answer(200)

    def commit(self, name: str, found: Repository, branch: str) -> None:
        lines = [json.loads(line) for line in self.read().splitlines()]
        self.hub.on_commit(found)
        header = lines[0]["value"]
        head = found.branches.get(branch)
        if head is None:
            raise error(404, "RevisionNotFound", "no such branch")
        if header.get("parentCommit") not in (None, head):
            raise error(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(found.files[head])
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in self.hub.stored:
                        raise error(400, message="an LFS object was not uploaded")
                    files[value["path"]] = self.hub.stored[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        made = found.commit(branch, files, header["summary"])
        raise Answer(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{made}", "commitOid": made})

    def download(self, found: Repository, revision: str, path: str) -> None:
        if found.gated and self.token != OWNER:
            raise error(403 if self.token else 401, "GatedRepo", "Access to this model is restricted")
        commit = self.commit_of(found, revision)
        if path not in found.files[commit]:
            raise Answer(404, None, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = found.files[commit][path]
        digest = oid(path, content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "X-Linked-Etag": f'"{digest}"'}
        raise Answer(200, content, headers | {"X-Linked-Size": str(len(content))})

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def running() -> Iterator[Hub]:
    """A hub on a free port of this machine."""

    class Own(Handler):
        """The handler of this hub alone."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    server.daemon_threads = True
    Own.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Own.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
