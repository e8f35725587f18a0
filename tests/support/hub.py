"""A stand-in for the Hugging Face Hub on this machine, which speaks what the Hub's own client asks.

A repository is {"private", "files"}, with "refs" where it has other revisions than main: name -> files. Those called
refs/pr/N are pull requests, and listed as such.
"""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN, COMMIT = "hf_good", "0" * 40


class Hub(ThreadingHTTPServer):
    """Keeps what arrives: repositories by name, with their visibility and files; and gives it out again."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, dict] = {}
        self.large: dict[str, bytes] = {}
        self.fetched: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args):
        pass

    def _say(self, values: dict | list, status: int = 200, error: str | None = None) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/api/whoami-v2":
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            return self._say({"name": "me"} if known else {"error": "Invalid"}, 200 if known else 401)
        if "/resolve/" in path:
            return self._file(path)
        name, _, asked = re.sub("/(tree|revision|discussions)(/|$)", r"\n\1 ", path, count=1).partition("\n")
        name = name.removeprefix("/api/models/")
        if name not in self.server.repositories:
            return self._say({"error": "Repository not found"}, 404, "RepoNotFound")
        repository = self.server.repositories[name]
        kind, _, revision = asked.partition(" ")
        if kind == "discussions":
            return self._say(_discussions(repository))
        revision, _, inside = revision.partition("/")  # The slashes of its own name are quoted.
        commit, content = _revision(repository, unquote(revision) or "main")
        if content is not None and inside:
            return self._say({"error": "Entry not found"}, 404, "EntryNotFound")
        if content is None:
            return self._say({"error": "Revision not found"}, 404, "RevisionNotFound")
        if kind == "tree":
            return self._say(
                [{"type": "file", "path": file, "size": len(data), "oid": COMMIT} for file, data in content.items()]
            )
        files = [{"rfilename": file, "size": len(data)} for file, data in content.items()]
        self._say({"id": name, "private": repository["private"], "sha": commit, "siblings": files})

    def do_HEAD(self):
        self._file(self.path.split("?")[0])

    def _file(self, path: str) -> None:
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        commit, files = _revision(self.server.repositories.get(name, {"files": {}}), unquote(revision))
        if files is None:
            return self._say({"error": "Revision not found"}, 404, "RevisionNotFound")
        if (content := files.get(file)) is None:
            return self._say({"error": "Entry not found"}, 404, "EntryNotFound")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "GET":
            self.server.fetched.append(file)
            self.wfile.write(content)

    def do_PUT(self):
        self.server.large[self.path.removeprefix("/large/")] = self._body()
        self._say({})

    def do_POST(self):
        path, body = self.path, self._body()
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            if wanted["organization"] != "me":
                return self._say({"error": "You don't have the rights"}, 403)
            private = wanted.get("visibility") == "private" or wanted.get("private") is True
            self.server.repositories[name] = {"private": private, "files": {}}
            return self._say({"url": f"{self.server.url}/{name}", "id": name})
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\nlicense:")
            return self._say({"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._say({"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.server.url}/large/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            return self._say({"transfer": "basic", "objects": objects})
        assert path.endswith("/commit/main"), path
        name = path.removeprefix("/api/models/").removesuffix("/commit/main")
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                self.server.repositories[name]["files"][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                self.server.repositories[name]["files"][value["path"]] = self.server.large[value["oid"]]
                assert hashlib.sha256(self.server.large[value["oid"]]).hexdigest() == value["oid"]
        self._say({"commitUrl": f"{self.server.url}/{name}/commit/0", "commitOid": COMMIT})


def _revision(repository: dict, wanted: str) -> tuple[str, dict[str, bytes] | None]:
    """Commit and files of a revision, by its name or its commit; no files where there is none."""
    revisions = {"main": repository["files"]} | repository.get("refs", {})
    for name, files in revisions.items():
        commit = COMMIT if name == "main" else hashlib.sha1(name.encode()).hexdigest()
        if wanted in (name, commit):
            return commit, files
    return COMMIT, None


def _discussions(repository: dict) -> dict:
    numbers = [int(name.rpartition("/")[2]) for name in repository.get("refs", {}) if name.startswith("refs/pr/")]
    listed = [
        {
            "num": number,
            "title": "Adding `safetensors` variant of this model",
            "status": "open",
            "isPullRequest": True,
            "author": {"name": "someone"},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "repo": {"name": "me/it", "type": "model"},
        }
        for number in numbers
    ]
    return {"discussions": listed, "count": len(listed), "start": 0, "numClosedDiscussions": 0}
