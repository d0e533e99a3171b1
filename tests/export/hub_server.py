"""A stand-in for the Hugging Face Hub on 127.0.0.1: strict about what huggingface_hub 1.33 sends, and it keeps what came.

Written from the client's own source (hf_api.py, _commit_api.py, lfs.py): whoami-v2, repos/create, model and dataset info,
auth-check, validate-yaml, preupload, LFS batch, basic and multipart transfer with completion and verification, commit. A path,
field, header or size that is not what that source sends lands in `wrong`, which a test expects to be empty. Of Xet only the first
question is here, and it is refused: its client is compiled, and HF_HUB_DISABLE_XET makes huggingface_hub take LFS.
"""

import base64
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil
from urllib.parse import urlsplit

import yaml

LARGE = (".safetensors", ".gguf")  # of the Hub's default .gitattributes, besides anything over 10 MB
PART = 1000  # bytes of a part; larger files go in several


@dataclass
class Repository:
    private: bool
    kind: str
    tags: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@dataclass
class Account:
    """A token's owner. Roles are those of whoami-v2; `writes` says what a fine-grained one may really write to."""

    name: str = "ada"
    role: str = "write"
    orgs: tuple[str, ...] = ()
    writes: tuple[str, ...] | None = None

    def may_write(self, owner: str) -> bool:
        return owner in (self.writes or (self.name, *self.orgs)) and self.role != "read"


class Hub(ThreadingHTTPServer):
    """`with Hub() as hub`: its `url` is for HF_ENDPOINT."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.accounts: dict[str, Account] = {}
        self.repositories: dict[str, Repository] = {}  # "ada/tiny", "datasets/ada/rows"
        self.gated: set[str] = set()
        self.hidden: set[str] = set()  # there, but not for the tokens in use
        self.stored: dict[str, bytes] = {}  # LFS objects by sha256
        self.parts: dict[str, dict[int, bytes]] = {}
        self.asked: list[str] = []  # "METHOD path" of every request
        self.sent: list[str] = []  # sha256 of every object whose bytes were put, in order
        self.wrong: list[str] = []
        self.cut: set[str] = set()  # objects at which the connection breaks
        self.lock = threading.Lock()

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Refused(Exception):
    """An answer that is no success: status, the Hub's X-Error-Code, its message."""

    def __init__(self, status: int, message: str, code: str = "", **body: object):
        self.status, self.message, self.code, self.body = status, message, code, body or {"error": message}


class Cut(Exception):
    """The connection ends here, without an answer."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.handle_all()

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def handle_all(self) -> None:
        hub, path = self.server, urlsplit(self.path).path
        body = self.body()
        with hub.lock:
            hub.asked.append(f"{self.command} {path}")
            try:
                for method, pattern, handler in ROUTES:
                    if method == self.command and (found := re.fullmatch(pattern, path)):
                        self.expect(not urlsplit(self.path).query, "query")
                        self.answer(200, *(handler(self, body, **found.groupdict()) or ({},)))
                        return
                hub.wrong.append(f"unknown: {self.command} {self.path}")
                raise Refused(400, "unknown path")
            except Refused as refusal:
                headers = {"X-Error-Message": refusal.message, "X-Error-Code": refusal.code}
                self.answer(refusal.status, refusal.body, {k: v for k, v in headers.items() if v})
            except Cut:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        for name, content in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, content)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def expect(self, good: bool, what: str) -> None:
        """Notes and refuses what the real client would not send."""
        if not good:
            self.server.wrong.append(f"{what}: {self.command} {self.path}")
            raise Refused(400, what)

    def keys(self, value: dict, *names: str) -> None:
        self.expect(set(value) == set(names), f"fields {sorted(value)}, expected {sorted(names)}")

    def account(self) -> Account:
        """Who the token belongs to; the Hub's 401 for one that it does not know."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        self.expect(scheme == "Bearer" and bool(token), "authorization")
        self.expect(self.headers.get("user-agent", "").startswith("unknown/None; hf_hub/1.33"), "user-agent")
        if token not in self.server.accounts:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.server.accounts[token]

    def nobody(self) -> None:
        """Storage gets no token: its addresses are signed."""
        self.expect("authorization" not in self.headers, "a token sent to storage")

    def writable(self, kind: str, repo: str) -> Repository:
        account = self.account()
        found = self.visible(kind, repo)
        if not account.may_write(repo.partition("/")[0]):
            raise Refused(403, f"you are not allowed to write to {repo}")
        return found

    def visible(self, kind: str, repo: str) -> Repository:
        account = self.account()
        if repo in self.server.gated:
            raise Refused(403, f"Access to model {repo} is restricted", "GatedRepo")
        found = self.server.repositories.get(_key(kind, repo))
        seen = account.may_write(repo.partition("/")[0]) or repo.partition("/")[0] == account.name
        if found is None or repo in self.server.hidden or (found.private and not seen):
            raise Refused(404, "Repository not found", "RepoNotFound")
        return found

    # -- what is answered, in the order the client asks ---------------------------------------------------------------

    def whoami(self, body: bytes):
        self.expect(not body, "a body")
        account = self.account()
        token = {"displayName": "laptop", "role": account.role}
        orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.orgs]
        return ({"type": "user", "name": account.name, "orgs": orgs, "auth": {"accessToken": token}},)

    def create(self, body: bytes):
        account, asked = self.account(), json.loads(body)
        self.keys(asked, "name", "organization", "type", "visibility")
        self.expect(asked["visibility"] in ("private", "public"), "visibility")
        self.expect(asked["type"] in ("model", "dataset"), "type")
        if not account.may_write(asked["organization"]):
            raise Refused(403, f"You don't have the rights to create one under the namespace {asked['organization']}")
        key = _key(asked["type"], f"{asked['organization']}/{asked['name']}")
        if key in self.server.repositories:
            raise Refused(409, "You already created this repo")
        made = Repository(asked["visibility"] == "private", asked["type"], files={".gitattributes": b"*.gguf lfs\n"})
        self.server.repositories[key] = made
        return ({"url": f"{self.server.url}/{key}", "name": asked["name"], "private": made.private},)

    def info(self, body: bytes, kind: str, repo: str, revision: str | None = None):
        found = self.visible(kind, repo)
        files = [{"rfilename": name} for name in sorted(found.files)]
        sha = sha1(repr(sorted(found.files.items())).encode()).hexdigest()
        return ({"id": repo, "private": found.private, "tags": found.tags, "siblings": files, "sha": sha},)

    def auth_check(self, body: bytes, kind: str, repo: str):
        self.visible(kind, repo)

    def auth_check_write(self, body: bytes, kind: str, repo: str):
        self.writable(kind, repo)

    def validate_yaml(self, body: bytes):
        self.account()
        asked = json.loads(body)
        self.keys(asked, "content", "repoType")
        try:
            values = yaml.safe_load(re.match(r"---\n(.*?\n)---\n", asked["content"], re.S)[1])
            for result in [one for model in values.get("model-index", []) for one in model["results"]]:
                if not {"type", "name"} <= result["dataset"].keys() or not result["metrics"] or "task" not in result:
                    raise ValueError("model-index")
            if not re.fullmatch(r"[a-z0-9.-]+", values.get("license", "none")):
                raise ValueError('"license" must be one of [apache-2.0, mit, ...]')
        except (TypeError, KeyError, ValueError, yaml.YAMLError) as error:
            raise Refused(400, "", errors=[{"message": str(error)}], warnings=[]) from None
        return ({"errors": [], "warnings": []},)

    def preupload(self, body: bytes, kind: str, repo: str):
        there, asked = self.writable(kind, repo), json.loads(body)
        self.keys(asked, "files")
        answers = []
        for each in asked["files"]:
            self.keys(each, "path", "sample", "size")
            self.expect(len(base64.b64decode(each["sample"])) == min(512, each["size"]), "sample")
            large = each["path"].endswith(LARGE) or each["size"] > 10_000_000
            old = there.files.get(each["path"])
            oid = {} if old is None else {"oid": sha256(old).hexdigest() if large else _git_oid(old)}
            answers.append(
                {"path": each["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **oid}
            )
        return ({"files": answers},)

    def xet_token(self, body: bytes, kind: str, repo: str):
        """The compiled client's first question; it is never let further."""
        self.writable(kind, repo)
        raise Refused(403, "storage quota reached")

    def batch(self, body: bytes, repo: str, datasets: str | None):
        self.writable("datasets" if datasets else "models", repo)
        self.expect(self.headers["Content-Type"] == "application/vnd.git-lfs+json", "content type")
        asked = json.loads(body)
        self.keys(asked, "operation", "transfers", "objects", "hash_algo", "ref")
        self.expect((asked["operation"], asked["hash_algo"]) == ("upload", "sha256"), "operation")
        self.expect(asked["ref"] == {"name": "main"} and asked["transfers"] == ["basic", "multipart"], "transfer")
        answers = []
        for each in asked["objects"]:
            self.keys(each, "oid", "size")
            answer = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.server.stored:
                base, header = self.server.url, {}
                place = f"{base}/storage/{each['oid']}"
                if each["size"] > PART:
                    count = ceil(each["size"] / PART)
                    header = {"chunk_size": str(PART), **{str(n): f"{place}/{n}" for n in range(1, count + 1)}}
                    place = f"{base}/complete/{each['oid']}"
                verify = f"{base}/verify/{each['oid']}"
                answer["actions"] = {"upload": {"href": place, "header": header}, "verify": {"href": verify}}
            answers.append(answer)
        return ({"objects": answers, "transfer": "basic"},)

    def put(self, body: bytes, oid: str):
        self.nobody()
        self.cut_at(oid)
        self.expect(sha256(body).hexdigest() == oid, "content")
        self.server.sent.append(oid)
        self.server.stored[oid] = body

    def put_part(self, body: bytes, oid: str, number: str):
        self.nobody()
        self.expect(0 < len(body) <= PART, "part")
        parts = self.server.parts.setdefault(oid, {})
        parts[int(number)] = body
        self.cut_at(oid)
        return {}, {"ETag": sha1(body).hexdigest()}

    def complete(self, body: bytes, oid: str):
        self.nobody()
        asked = json.loads(body)
        self.keys(asked, "oid", "parts")
        parts = self.server.parts.pop(oid)
        tags = [{"partNumber": n, "etag": sha1(parts[n]).hexdigest()} for n in sorted(parts)]
        self.expect(asked == {"oid": oid, "parts": tags}, "parts")
        whole = b"".join(parts[n] for n in sorted(parts))
        self.expect(sha256(whole).hexdigest() == oid, "content")
        self.server.sent.append(oid)
        self.server.stored[oid] = whole

    def verify(self, body: bytes, oid: str):
        self.account()
        self.expect(json.loads(body) == {"oid": oid, "size": len(self.server.stored[oid])}, "verification")

    def commit(self, body: bytes, kind: str, repo: str):
        there = self.writable(kind, repo)
        self.expect(self.headers["Content-Type"] == "application/x-ndjson", "content type")
        head, *lines = [json.loads(line) for line in body.splitlines()]
        self.keys(head["value"], "summary", "description")
        new, gone = {}, set()
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.keys(value, "content", "path", "encoding")
                self.expect(value["encoding"] == "base64", "encoding")
                new[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                self.keys(value, "path")
                self.expect(value["path"] in there.files, "a file to delete that is not there")
                gone.add(value["path"])
            else:
                self.expect(line["key"] == "lfsFile", f"operation {line['key']}")
                self.keys(value, "path", "algo", "oid", "size")
                self.expect(
                    len(self.server.stored.get(value["oid"], b"")) == value["size"], "an object that never came"
                )
                new[value["path"]] = self.server.stored[value["oid"]]
        there.files = {name: each for name, each in (there.files | new).items() if name not in gone}
        there.messages.append(head["value"]["summary"])
        if "README.md" in new:
            there.tags = yaml.safe_load(new["README.md"].decode().split("---\n")[1]).get("tags", [])
        return ({"success": True, "commitUrl": f"{self.server.url}/{repo}/commit/1", "commitOid": "1" * 40},)

    def cut_at(self, oid: str) -> None:
        if oid in self.server.cut:
            raise Cut


def _key(kind: str, repo: str) -> str:
    """Where a repository stands in `repositories`; a kind comes as dataset or as datasets."""
    return f"datasets/{repo}" if kind.startswith("dataset") else repo


def _git_oid(content: bytes) -> str:
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
KIND = r"/api/(?P<kind>models|datasets)/"
ROUTES = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("GET", rf"{KIND}{REPO}/auth-check", Handler.auth_check),
    ("GET", rf"{KIND}{REPO}/auth-check/write", Handler.auth_check_write),
    ("GET", rf"{KIND}{REPO}(?:/revision/(?P<revision>main))?", Handler.info),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("POST", rf"{KIND}{REPO}/preupload/main", Handler.preupload),
    ("GET", rf"{KIND}{REPO}/xet-write-token/main", Handler.xet_token),
    ("POST", rf"/(?P<datasets>datasets/)?{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", Handler.put),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})/(?P<number>\d+)", Handler.put_part),
    ("POST", r"/complete/(?P<oid>[0-9a-f]{64})", Handler.complete),
    ("POST", r"/verify/(?P<oid>[0-9a-f]{64})", Handler.verify),
    ("POST", rf"{KIND}{REPO}/commit/main", Handler.commit),
]
