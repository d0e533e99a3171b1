"""A vault as an MCP server, for LM Studio, Claude Desktop and every other client: stdio, or HTTP on this machine only.

Two shapes, as data of the registry: `agents` (one tool for each agent, with `mode`, as the plugin did it) and `tools` (one
for each name). Not here: authentication, which is why no other machine is served.
"""

import contextlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from mcp.server import Server
from mcp.server.stdio import stdio_server

from toolset_nb import __version__
from toolset_nb.tools import Catalogue, Tool, catalogue
from toolset_nb.vault.executor import Vault

SHAPES = ("agents", "tools")
DESTRUCTIVE = ("delete", "replace", "overwrite")
INSTRUCTIONS = (
    "Tools over a folder of Markdown notes. Every call needs `context` with seven texts: sessionId, workspaceId (`default` if "
    "unknown), sessionDescription, sessionMemory (what has happened so far), toolContext, primaryGoal and subgoal."
)


def build(vault: Vault, shape: str = "tools", log: Path | str | None = None) -> Server:
    """An MCP server over one vault. `log` takes one JSON line for each call, which `read_calls` reads back."""
    known = catalogue()
    listed = _by_agent(known, vault.read_only) if shape == "agents" else _by_name(known, vault.read_only)
    writing = threading.Lock()

    async def list_tools(_: Any, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    async def call_tool(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        name, arguments = params.name, dict(params.arguments or {})
        if shape == "agents" and name in known.agents:
            name = f"{name}_{arguments.pop('mode', '')}"
        result = await anyio.to_thread.run_sync(vault.call, name, arguments)
        if log:
            line = {"time": vault.tree.now, "name": name, "arguments": arguments, "success": result["success"]}
            with writing, open(log, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        text = types.TextContent(type="text", text=json.dumps(result, ensure_ascii=False))
        return types.CallToolResult(content=[text], structured_content=result, is_error=not result["success"])

    return Server(
        "toolset_nb-vault",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def serve_stdio(server: Server) -> None:
    """Serve the client that has started this process, until it closes the pipe."""

    async def run() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(run)


def serve_http(server: Server, port: int) -> None:
    """Serve http://127.0.0.1:PORT/mcp until Ctrl-C."""
    import uvicorn

    print(f"http://127.0.0.1:{port}/mcp", file=sys.stderr, flush=True)
    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")


@contextlib.contextmanager
def in_background(server: Server) -> Iterator[str]:
    """Serve over HTTP on a free port from a thread; yields the address. For tests and notebooks."""
    import uvicorn

    web = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=web.run, daemon=True)
    thread.start()
    while not web.started and thread.is_alive():
        thread.join(0.02)
    try:
        yield f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}/mcp"
    finally:
        web.should_exit = True
        thread.join(10)


def read_calls(path: Path | str) -> Iterator[tuple[str, Any]]:
    """The calls of a log, for `Vault.replay`; a torn last line is left out."""
    for line in Path(path).read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError, KeyError):
            entry = json.loads(line)
            yield entry["name"], entry["arguments"]


def _by_name(known: Catalogue, read_only: bool) -> list[types.Tool]:
    return [
        types.Tool(
            name=tool.name,
            description=tool.description,
            input_schema=_schema(known, {"properties": tool.parameters["properties"]}, tool.required)
            | {key: tool.parameters[key] for key in ("anyOf",) if key in tool.parameters},
            annotations=_annotations([tool]),
        )
        for tool in known.tools.values()
        if not (read_only and tool.mutates)
    ]


def _by_agent(known: Catalogue, read_only: bool) -> list[types.Tool]:
    listed = []
    for agent, description in known.agents.items():
        tools = [tool for tool in known.tools.values() if tool.agent == agent and not (read_only and tool.mutates)]
        properties: dict[str, dict] = {}
        for tool in tools:
            for name, rule in tool.parameters["properties"].items():
                same = name in properties and properties[name] != rule
                properties[name] = {"description": rule.get("description", "")} if same else rule
        # openNote has a parameter `mode` of its own: in this shape, as in the plugin, it keeps its default
        modes = {"type": "string", "enum": [tool.mode for tool in tools], "description": "What to do."}
        lines = [f"- {tool.mode}({', '.join(tool.required)}): {tool.description}" for tool in tools]
        if tools:
            schema = _schema(known, {"properties": properties | {"mode": modes}}, ["mode"])
            text = "\n".join([description, "Modes:", *lines])
            listed.append(
                types.Tool(name=agent, description=text, input_schema=schema, annotations=_annotations(tools))
            )
    overview = [
        tool
        for tool in _by_name(known, read_only)
        if tool.name not in {t.name for t in known.tools.values() if t.agent}
    ]
    return listed + overview


def _schema(known: Catalogue, parameters: dict, required: list[str]) -> dict:
    properties = {"context": known.context} | parameters["properties"]
    return {"type": "object", "properties": properties, "required": ["context", *required]}


def _annotations(tools: list[Tool]) -> types.ToolAnnotations:
    destructive = any(
        word in tool.mode.lower() or word in tool.parameters["properties"] for tool in tools for word in DESTRUCTIVE
    )
    return types.ToolAnnotations(
        read_only_hint=not any(tool.mutates for tool in tools), destructive_hint=destructive, open_world_hint=False
    )
