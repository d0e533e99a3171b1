"""What servers do differently (params/servers.yaml), where they listen, and which one answers at an address."""

import os
import re
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import yaml

from toolset_nb.paths import repo_root
from toolset_nb.settings import SettingsError

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # Ollama's way to listen everywhere is no address to call
ADDRESS = re.compile(r"https?://|(?:[\w.-]+|\[[\da-fA-F:]+\]):\d+(?:/|$)")  # as people type it, with or without http://


@dataclass(frozen=True)
class Kind:
    """One kind of server; the fields are explained at the top of params/servers.yaml."""

    name: str
    title: str
    port: int
    chat: str
    probe: str
    sent: dict[str, Any]
    schema: bool
    model_fault: tuple[str, ...]
    overflow: tuple[str, ...]
    context: dict[str, Any]
    identity: tuple[list[str], ...]
    tools: str
    length: str
    start: str

    def address(self, host: str = "", port: int = 0) -> str:
        """Where it listens: the given host and port, else <NAME>_HOST and <NAME>_PORT, else this machine.

        Raises SettingsError for what is no address.
        """
        host_name, port_name = f"{self.name.upper()}_HOST", f"{self.name.upper()}_PORT"
        host, told = host or os.environ.get(host_name, ""), os.environ.get(port_name, "")
        try:
            parts = urlsplit(host if "://" in host else f"//{host}")
            port = port or parts.port or int(told or self.port)
        except ValueError:
            raise SettingsError(
                f"{self.title}: host {host!r} and port {told!r} are no address; expected for example 127.0.0.1 and "
                f"{self.port}, from the settings or from {host_name} and {port_name}"
            ) from None
        name = parts.hostname or "127.0.0.1"
        name = EVERYWHERE.get(name, name)
        return f"{parts.scheme or 'http'}://{f'[{name}]' if ':' in name else name}:{port}"

    @property
    def key(self) -> str:
        """The API key of this kind of server, from the environment only."""
        return os.environ.get(f"{self.name.upper()}_API_KEY", "")


@cache
def kinds() -> dict[str, Kind]:
    """Every kind by its name."""
    entries = yaml.safe_load((repo_root() / "params" / "servers.yaml").read_text(encoding="utf-8"))
    return {
        name: Kind(name, **{key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()})
        for name, entry in entries.items()
    }


def is_server(target: str) -> bool:
    """Whether a target names a server: a kind or an address, each with an optional #model."""
    head = target.partition("#")[0]
    return head in kinds() or head.partition("+")[0] in kinds() or ADDRESS.match(head) is not None


def connect(target: str, host: str = "", port: int = 0, **options: Any):
    """The Endpoint of a target: `kind#model` at the kind's own address, `http://..#model`, or `kind+http://..#model`.

    Without a kind the server is recognised by what it answers; without a model the first that it names is taken.
    `options` go to Endpoint. Raises RequestFailed when nothing answers, SettingsError for what names no server.
    """
    from toolset_nb.servers.endpoint import Endpoint

    place, _, model = target.partition("#")
    if not is_server(place):
        raise SettingsError(
            f"{place!r} is no server: expected {', '.join(kinds())}, or an address such as 127.0.0.1:8080"
        )
    if place in kinds():
        kind, url = kinds()[place], kinds()[place].address(host, port)
    else:
        name, plus, url = place.partition("+")
        if not plus or name not in kinds():
            name, url = "", place
        url = url if "://" in url else f"http://{url}"
        kind = kinds()[name] if name else recognise(url)
    endpoint = Endpoint(url, model, kind=kind, **{"api_key": kind.key, **options})
    if not model:
        endpoint.model = (endpoint.models() or [""])[0]
    return endpoint


def recognise(url: str) -> Kind:
    """The kind of the server at an address, by the path that only this kind answers; `openai` when none does."""
    import httpx

    from toolset_nb.servers.endpoint import plain_address

    for kind in kinds().values():
        if not kind.probe:
            continue
        try:
            reply = httpx.get(plain_address(url) + kind.probe, timeout=3)
            found = reply.json() if reply.status_code == 200 else None
            if isinstance(found, dict) and "error" not in found:  # LM Studio answers any path with 200 and an error
                return kind
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            continue
    return kinds()["openai"]
