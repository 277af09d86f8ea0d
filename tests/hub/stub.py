"""The part of the hub's HTTP API that models need, on this machine: repositories of small files, one commit each."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from proctool import hub

TOKEN = "hf_test"


@dataclass
class Repository:
    files: dict[str, bytes] = field(default_factory=dict)
    kind: str = "model"
    private: bool = False
    writable: bool = True
    readable: bool = True

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class Stub:
    """The repositories by id, and what was asked."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    may_create: bool = True

    def add(self, name: str, folder: Path) -> Repository:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories[name] = Repository(files)
        return self.repositories[name]

    @property
    def sent(self) -> list[str]:
        """Names of the files that were downloaded."""
        return [each.rpartition("/")[2] for each in self.asked if each.startswith("GET") and "/resolve/" in each]


def _handler(stub: Stub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, value: Any, code: int = 200, **headers: str) -> None:
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(code)
            for name, text in headers.items():
                self.send_header(name.replace("_", "-"), text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def refuse(self, code: int, why: str) -> None:
            self.answer({"error": why}, code, X_Error_Code=why)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            stub.asked.append(f"{self.command} {path}")
            api = re.fullmatch(r"/api/(\w+)s/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
            file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            name = api[2] if api else file[1] if file else ""
            found = stub.repositories.get(name)
            if found is None or (api and api[1] != found.kind):
                return self.refuse(404, "RepoNotFound")
            if not found.readable:
                return self.refuse(403, "GatedRepo")
            revision = (api[4] if api else file[2] if file else None) or "main"
            if revision not in ("main", found.commit):
                return self.refuse(404, "RevisionNotFound")
            if file:
                content = found.files[file[3]]
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                return self.answer(content, ETag=etag, X_Repo_Commit=found.commit)
            if api and api[3] == "tree":
                return self.answer(
                    [
                        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for name, content in found.files.items()
                    ]
                )
            siblings = [{"rfilename": each} for each in found.files]
            return self.answer(
                {"id": name, "modelId": name, "sha": found.commit, "private": found.private, "siblings": siblings}
            )

        def do_POST(self) -> None:
            stub.asked.append(f"POST {self.path}")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self.refuse(401, "Unauthorized")
            if self.path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                if not stub.may_create:
                    return self.refuse(403, "Forbidden")
                if name in stub.repositories:
                    return self.refuse(409, "RepoAlreadyExists")
                private = bool(asked.get("private")) or asked.get("visibility") == "private"
                stub.repositories[name] = Repository(private=private)
                return self.answer({"url": f"{stub.url}/{name}"})
            found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main(\?.*)?", self.path)
            assert found, self.path
            repository = stub.repositories[found[1]]
            if not repository.writable:
                return self.refuse(403, "Forbidden")
            if found[2] == "preupload":
                return self.answer(
                    {
                        "files": [
                            {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                            for each in json.loads(body)["files"]
                        ]
                    }
                )
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    repository.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del repository.files[line["value"]["path"]]
            commit = repository.commit
            return self.answer({"commitOid": commit, "commitUrl": f"{stub.url}/{found[1]}/commit/{commit}"})

    return Handler


@contextmanager
def serving() -> Iterator[Stub]:
    stub = Stub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stub))
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def go_offline(monkeypatch: pytest.MonkeyPatch, offline: bool = True) -> None:
    """What HF_HUB_OFFLINE does; huggingface_hub reads its variables once, when it is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    hub.fetch.cache_clear()


def point_at(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """What HF_ENDPOINT, HF_HUB_CACHE and HF_TOKEN do."""
    constants = huggingface_hub.constants
    go_offline(monkeypatch, False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
