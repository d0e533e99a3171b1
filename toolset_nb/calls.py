"""Reading and writing tool calls in every form a model or a dataset writes them.

Read: `text` (tool_call:/arguments:/Result: lines), `hermes` (<tool_call> JSON), Mistral [TOOL_CALLS], Llama 3 bare JSON
and OpenAI `tool_calls`. Written: `text` and `hermes`. Whether a tool exists and its arguments fit is judged by `tools`.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from toolset_nb.tools import catalogue

FORMATS = ("hermes", "text")
MOST_PROBLEMS = 20  # after so many a reply is noise; reading on would cost quadratic time
LONGEST_REPAIR = 200_000  # characters of broken JSON worth a repair
DEEPEST = 100  # levels of a value; what reads it on may go down by recursion

MARKER = re.compile(r"^tool_call:|^Result:[ \t]*(?=[{\[])|<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>", re.M)
TEXT_HEAD = re.compile(r"tool_call:[ \t]*(\S+)[ \t]*\r?\n[ \t]*arguments:[ \t]*")
LOOSE_HEAD = re.compile(
    r"tool_call:\**\s*[`\"'*]*([\w.-]+)[`\"'*,]*\s*[*\"']*arguments?[\"'*]*\s*[:=][*\s]*(?:```\w*\s*)?"
)
MISTRAL_HEAD = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)")
FENCED_CALL = re.compile(r"[{\[][\s{\[]{0,20}[\"'“]?(?:name|function)[\"'”]?\s*:|\btool_call:\s*[`\"'*]*\w+_\w")
# What only a call looks like, in forms that are not read: other models' tokens, Python, other keys. Next come known tools.
UNREAD = (
    r"<[|｜]?(?:\w+:)?(?:tool[_▁]call|function|start_function_call)|<invoke\s+name=|<\|channel\|>commentary|<｜tool|"
    r"to=functions\.|"
    r"\b[a-z]{1,40}[A-Z]\w{0,40}_[a-z]\w{0,60}(?:\(|\s*\{)|"
    r"[\"'](?:tool|tool_name|function|action|name)[\"']\s*:\s*[\"']\w+_\w+[\"']"
)
BEFORE_ARGUMENTS = r"\(|\W{0,12}(?:(?:action[ _]input|arguments|args|parameters|params|input|json)\W{0,8})?\{"
OPENING_TAG = r"<(?:[\w:]+(?:\s+\w+)?=[\"']?|(?:tool|function|action|name|invoke)\w*>\s*)?"
# A thought, closed or not; or one that was opened in the prompt, whose end stands next to a line's (as none does in JSON).
THOUGHT = re.compile(
    r"\s*<(think(?:ing)?)>(?:.*?</\1>|.*\Z)|"
    r"(?:(?!<think(?:ing)?>).)*(?:\n\s*</think(?:ing)?>|</think(?:ing)?>(?=[ \t]*(?:\r?\n|<tool_call>|\Z)))",
    re.S,
)
END_TOKENS = re.compile(r"(?:\s*(?:<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|<\|endoftext\|>|</s>))+\s*\Z")
FENCE = re.compile(r"(?:`{3,}|~{3,})[ \t]*\w*")
BEGUN = re.compile(r"[{]|\[\s*[{]")
QUOTE = re.compile(r"```|~~~|</?think(?:ing)?>")
TICK = re.compile(r"(?<!`)`(?!`)")
TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|[{}\[\]]|//[^\n]*|/\*[^*]{0,500}\*/|\b(?:True|False|None)\b', re.S
)
LATE_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.S)
STRAIGHT = str.maketrans("“”„＂‘’", '""""\'\'')
PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


class Call(NamedTuple):
    """A tool's name and its arguments, `context` among them."""

    name: str
    arguments: dict


class Result(NamedTuple):
    """What a tool gave back, as it stands after `Result:`."""

    value: Any


class Broken(NamedTuple):
    """A call that cannot be read: the name as far as it is known, and the source text of its arguments."""

    name: str
    source: str


Block = str | Call | Result | Broken


@dataclass
class Reply:
    """A reply as blocks in their order; `rescued` when a call was only readable leniently."""

    blocks: list[Block] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rescued: bool = False

    @property
    def text(self) -> str:
        """The prose outside calls and results."""
        return "\n\n".join(block for block in self.blocks if isinstance(block, str))

    @property
    def calls(self) -> list[Call]:
        """The calls that could be read, in order."""
        return [block for block in self.blocks if isinstance(block, Call)]

    @property
    def results(self) -> list[Any]:
        """The values of the `Result:` blocks, in order."""
        return [block.value for block in self.blocks if isinstance(block, Result)]

    @property
    def kind(self) -> str:
        """ "malformed", "text_call" (prose and calls), "call", "text" or "empty"."""
        if self.problems or any(isinstance(block, Broken) for block in self.blocks):
            return "malformed"
        if self.calls:
            return "text_call" if self.text else "call"
        return "text" if self.text else "empty"


def parse(text: Any, tool_calls: Any = None, *, rescue: bool = True) -> Reply:
    """Read a reply. Total: whatever stands in it, nothing is raised; faults are named in `problems`.

    `rescue=False` reads no call leniently: what is not exact becomes a `Broken` block with a problem.
    """
    reply = Reply()
    _Reader(_plain(text, reply), reply, rescue).read()
    if tool_calls is not None:
        _openai(tool_calls, reply, rescue)
    return reply


def render(blocks: Iterable[Block], call_format: str = "hermes") -> str:
    """Write blocks in a call format; `parse` gives the same blocks back. Raises ValueError for an unknown format."""
    if call_format not in FORMATS:
        raise ValueError(f"call_format {call_format!r}: expected one of {', '.join(FORMATS)}")
    parts = []
    for block in blocks:
        if isinstance(block, str):
            parts.append(block)
        elif isinstance(block, Result):
            parts.append("Result: " + dumps(block.value))
        else:
            source = dumps(block.arguments) if isinstance(block, Call) else block.source
            if call_format == "text":
                parts.append(f"tool_call: {block.name}\narguments: {source}")
            else:
                parts.append(f'<tool_call>\n{{"name": {dumps(block.name)}, "arguments": {source}}}\n</tool_call>')
    return ("\n\n" if call_format == "text" else "\n").join(parts)


def dumps(value: Any) -> str:
    """One line of JSON as the datasets write it: default separators, no escapes outside ASCII."""
    return json.dumps(value, ensure_ascii=False)


def loads(text: str) -> Any:
    """JSON without duplicate keys, NaN or infinity; raises ValueError (also for depth) with a plain reason."""
    value, end = decode(text, len(text) - len(text.lstrip(" \t\r\n")))
    if text[end:].strip(" \t\r\n"):
        raise ValueError(f"more text after the value, at character {end + 1}")
    return value


def decode(text: str, start: int = 0) -> tuple[Any, int]:
    """(value, end) of the JSON value at `start`; the same refusals as `loads`."""
    try:
        return _flat(*EXACT.raw_decode(text, start))
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg[:1].lower()}{error.msg[1:]} at character {error.pos + 1}") from None
    except (StopIteration, IndexError):
        raise ValueError(f"no value at character {start + 1}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _flat(value: Any, end: int) -> tuple[Any, int]:
    """The same; raises ValueError for a value of more than DEEPEST levels."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError("nested too deeply")
        below = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [part for parts in below for part in parts]
    return value, end


def _unique(pairs: list[tuple[str, Any]]) -> dict:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r:.80} stands twice in one object")
    return made


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"number {digits[:20]} is too large")
    return value


def _whole(digits: str) -> int:
    if len(digits) > 4000:
        raise ValueError(f"number of {len(digits)} digits is too large")
    return int(digits)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


EXACT = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_refuse)
LOOSE = json.JSONDecoder(strict=False, parse_float=_finite, parse_int=_whole, parse_constant=_refuse)


@cache
def _unread() -> re.Pattern:
    """`UNREAD`, and a known tool's name next to what begins arguments, as `agent_mode`, `agent.mode` or agent with `mode`."""
    tools = catalogue().tools.values()
    names = "|".join(tool.name.replace("_", "[_.]") for tool in tools)
    modes = "|".join({tool.mode for tool in tools if tool.agent})
    known = rf"\b(?:{names})(?:{BEFORE_ARGUMENTS})|{OPENING_TAG}(?:{names})\b"
    known += rf"|\bmode[\"']?\s*[:=]\s*[\"'](?:{modes})[\"']"
    return re.compile(f"{UNREAD}|(?i:{known})")


class _Reader:
    """One pass over a reply's text; `at` is how far it has been read."""

    def __init__(self, text: str, reply: Reply, rescue: bool):
        self.text, self.reply, self.rescue = text, reply, rescue
        self.at = 0
        self.fenced = self.ticked = False  # inside a code block or a thought, inside code in a line

    def read(self) -> None:
        if self.text.lstrip()[:1] == "{" and self._bare(len(self.text) - len(self.text.lstrip())):
            return
        search = 0
        while len(self.reply.problems) < MOST_PROBLEMS and (found := MARKER.search(self.text, search)):
            search = max(self._block(found), found.end())
        self._prose(len(self.text))
        if self.rescue and not self.reply.problems and not self.reply.calls:
            self._hidden()

    def _block(self, found: re.Match) -> int:
        """Take the block at a marker and return where to search on."""
        mark, start, text = found.group(), found.start(), self.text
        if mark.startswith("Result:"):
            try:
                value, end = decode(text, found.end())
            except ValueError as error:
                self._fault(f"Result: {error}")
                return found.end()
            self._take(start, end, [Result(value)])
            return end
        if mark == "<|python_tag|>":
            self._prose(start)
            self.at = found.end()
            return found.end() if self._bare(found.end()) else found.end()
        if mark == "tool_call:":
            return self._text_call(start)
        if mark == "<tool_call>":
            return self._tagged(found)
        return self._mistral(found)

    def _text_call(self, start: int) -> int:
        head, exact = TEXT_HEAD.match(self.text, start), True
        if head is None:
            head, exact = LOOSE_HEAD.match(self.text, start), False
        if head is None or not (exact or self.rescue):
            end = _line_end(self.text, start)
            self._fault("tool_call: no name followed by an arguments: line")
            self._take(start, end, [Broken(self.text[start + 10 : end].strip(), "")])
            return end
        return self._call(start, head.end(), head.group(1), exact)

    def _call(self, start: int, begin: int, name: str, exact: bool = True) -> int:
        """A call whose arguments begin at `begin`."""
        try:
            value, end, clean = self._value(begin)
            call, plain = _as_call(name, value, self.rescue)
        except ValueError as error:
            end = _line_end(self.text, begin)
            self._fault(f"{name}: arguments: {error}")
            self._take(start, end, [Broken(name, self.text[begin:end].strip())])
            return end
        rest = _skip(self.text, end, " \t\r`")
        alone = rest == len(self.text) or self.text.startswith(("\n", "[TOOL_CALLS]"), rest)
        self._take(start, end, [call], exact and clean and plain and alone)
        return end

    def _tagged(self, found: re.Match) -> int:
        text, begin = self.text, found.end()
        fence = FENCE.match(text, _skip(text, begin))
        if fence and self.rescue:
            begin = fence.end()
        try:
            value, end, clean = self._value(_skip(text, begin))
            items = value if isinstance(value, list) and self.rescue else [value]
            made = [_named(item, self.rescue, "arguments") for item in items]
        except ValueError as error:
            close = text.find("</tool_call>", begin)
            following = text.find("<tool_call>", begin)
            cut = close == -1 or -1 < following < close
            end = (following if following != -1 else len(text)) if cut else close
            self._fault(f"<tool_call>: {error}")
            self._take(found.start(), end + (0 if cut else 12), [_broken(text[begin:end])])
            return self.at
        after = FENCE.match(text, _skip(text, end))
        close = _skip(text, after.end() if after else end)
        closed = text.startswith("</tool_call>", close)
        if not closed and not self.rescue:
            self._fault("<tool_call>: not closed")
        clean = clean and closed and not fence and value is not items and all(plain for _, plain in made)
        end = close + 12 if closed else end
        self._take(found.start(), end, [call for call, _ in made], clean)
        return end

    def _mistral(self, found: re.Match) -> int:
        if head := MISTRAL_HEAD.match(self.text, found.end()):
            return self._call(found.start(), head.end(), head.group(1))
        try:
            value, end, clean = self._value(_skip(self.text, found.end()))
            made = [_named(item, self.rescue, "arguments") for item in (value if isinstance(value, list) else [value])]
        except ValueError as error:
            end = _line_end(self.text, found.end())
            self._fault(f"[TOOL_CALLS]: {error}")
            self._take(found.start(), end, [_broken(self.text[found.end() : end])])
            return end
        clean = clean and isinstance(value, list) and all(plain for _, plain in made)
        self._take(found.start(), end, [call for call, _ in made], clean)
        return end

    def _bare(self, begin: int, exact: bool = True) -> bool:
        """Llama 3: JSON objects with name and parameters, parted by semicolons. False when there is none at `begin`."""
        found = False
        while self.text.startswith(("{", "["), begin := _skip(self.text, begin)):
            try:
                value, end, clean = self._value(begin)
                items = value if isinstance(value, list) else [value]
                made = [_named(item, self.rescue, "parameters") for item in items]
            except ValueError:
                break
            rest = self.text[end:].lstrip()
            clean = clean and exact and isinstance(value, dict) and (not rest or rest[0] == ";")
            if not made or not (clean and all(plain for _, plain in made) or self.rescue):
                break
            self._take(begin, end, [call for call, _ in made], clean and all(plain for _, plain in made))
            found = True
            begin = self.at = _skip(self.text, end, "; \t\r\n")
        if found and BEGUN.match(self.text, begin):
            self._fault("more of a call follows that cannot be read")
            self._take(begin, len(self.text), [_broken(self.text[begin:])])
        elif found:
            self._prose(len(self.text))
        return found

    def _hidden(self) -> None:
        """A call without its marker in place: in a code fence or in prose; one in no form that is read is a fault."""
        for found in FENCED_CALL.finditer(self.text):
            blocks, self.reply.blocks, self.at = self.reply.blocks, [], 0
            if "tool_call" in found.group():
                head = LOOSE_HEAD.match(self.text, found.start())
                if head:
                    self._call(found.start(), head.end(), head.group(1), exact=False)
                    self._prose(len(self.text))
            else:
                self._bare(found.start(), exact=False)
            if self.reply.calls or self.reply.problems:
                return
            self.reply.blocks = blocks
            break
        if _unread().search(self.text):
            self._fault("what looks like a call stands in no form that is read here")

    def _value(self, begin: int) -> tuple[Any, int, bool]:
        """(value, end, exact) of the JSON at `begin`."""
        try:
            return *decode(self.text, begin), True
        except ValueError:
            repaired = _repair(self.text, begin) if self.rescue else None
            if repaired is None:
                raise
            return *repaired, False

    def _prose(self, end: int) -> None:
        prose = self.text[self.at : end]
        if prose:
            self.fenced ^= len(QUOTE.findall(prose)) % 2 == 1
            line = prose.rpartition("\n")[2]
            self.ticked = (self.ticked and line == prose) ^ (len(TICK.findall(line)) % 2 == 1)
        if prose and not prose.isspace():
            prose = prose.strip()
            if (
                FENCE.sub("", prose).strip("`~ \n;")
                or not self.reply.calls
                and end == len(self.text)
                or not self.rescue
            ):
                self.reply.blocks.append(prose)
        self.at = end

    def _take(self, start: int, end: int, blocks: list[Block], exact: bool = True) -> None:
        self._prose(start)
        if (self.fenced or self.ticked) and isinstance(blocks[0], Call):
            exact = False
        self.reply.blocks += blocks
        self.at = end
        if not exact:
            if self.rescue:
                self.reply.rescued = True
            else:
                self._fault("a call that only a lenient reader understands")

    def _fault(self, problem: str) -> None:
        self.reply.problems.append(problem)


def _plain(text: Any, reply: Reply) -> str:
    """The reply's text without thought, end tokens and byte order mark; content parts are joined."""
    if text is None:
        return ""
    if isinstance(text, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in text]
        text = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(text, str):
        reply.problems.append(f"the reply is a {type(text).__name__}, expected text")
        return ""
    if "\ufeff" in text[:1]:
        text = text[1:]
    start = 0
    while "think" in text and (thought := THOUGHT.match(text, start)):
        start = thought.end()
    text = text[start:]
    if text[-40:].rstrip()[-1:] == ">":
        text = END_TOKENS.sub("", text[-200:]) if len(text) <= 200 else text[:-200] + END_TOKENS.sub("", text[-200:])
    return text


def _openai(tool_calls: Any, reply: Reply, rescue: bool) -> None:
    for entry in tool_calls if isinstance(tool_calls, list) else [tool_calls]:
        function = entry.get("function", entry) if isinstance(entry, dict) else entry
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            reply.problems.append("tool_calls: an entry without function.name")
            continue
        arguments = function.get("arguments")
        source = arguments
        try:
            if isinstance(arguments, str):
                try:
                    arguments = loads(arguments)
                except ValueError:
                    repaired = _repair(arguments, _skip(arguments, 0)) if rescue else None
                    if repaired is None:
                        raise
                    arguments, reply.rescued = repaired[0], True
            call, plain = _as_call(name, _flat(arguments, 0)[0], rescue)
        except ValueError as error:
            reply.problems.append(f"tool_calls: {name}: arguments: {error}")
            reply.blocks.append(Broken(name, _written(source)))
            continue
        reply.blocks.append(call)
        reply.rescued |= not plain


def _written(source: Any) -> str:
    try:
        return source if isinstance(source, str) else str(source)
    except (ValueError, RecursionError):  # thousands of digits or of levels
        return "..."


def _as_call(name: str, arguments: Any, rescue: bool) -> tuple[Call, bool]:
    """(call, exact); arguments that are JSON in a string are decoded, which is not exact."""
    exact = True
    for _ in range(2):
        if isinstance(arguments, str) and rescue:
            arguments, exact = loads(arguments), False
    if not isinstance(arguments, dict):
        raise ValueError(f"found a {type(arguments).__name__}, expected an object")
    return Call(name, arguments), exact


def _named(value: Any, rescue: bool, key: str) -> tuple[Call, bool]:
    """A call from {"name": .., key: {..}}; the other usual key is readable but not exact."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict) and rescue:
        call, _ = _named(value["function"], rescue, key)
        return call, False
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        raise ValueError("no object with a name")
    other = {"arguments": "parameters", "parameters": "arguments"}[key]
    if key not in value and other in value and rescue:
        call, _ = _as_call(value["name"], value[other], rescue)
        return call, False
    if key not in value:
        raise ValueError(f"{value['name']}: no {key}")
    return _as_call(value["name"], value[key], rescue)


def _broken(source: str) -> Broken:
    """What can be told of a JSON call that does not parse: its name, and its arguments' text."""
    found = re.match(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"arguments"\s*:\s*', source)
    if not found:
        return Broken("", source.strip())
    return Broken(found.group(1), source[found.end() :].strip().removesuffix("}").strip())


def _repair(text: str, begin: int) -> tuple[Any, int] | None:
    """(value, end) of JSON with comments, late commas, other quotes, Python words, raw line ends; None if hopeless."""
    source = text[begin : begin + LONGEST_REPAIR]
    for chunk in dict.fromkeys((source, source.translate(STRAIGHT))):
        depth, last, parts, end = 0, 0, [], None
        for found in TOKEN.finditer(chunk):
            token = found.group()
            if depth == 0 and token not in "{[":
                break
            parts.append(chunk[last : found.start()])
            last = found.end()
            if token[0] == "'":
                token = json.dumps(token[1:-1].replace("\\'", "'"))
            parts.append("" if token[0] == "/" else PYTHON_WORDS.get(token, token))
            depth += (token in "{[") - (token in "}]")
            if depth == 0:
                end = last
                break
        if end is None:
            continue
        try:
            return _flat(LOOSE.decode(LATE_COMMA.sub(lambda found: found.group(1) or "", "".join(parts))), begin + end)
        except (ValueError, RecursionError):
            continue
    return None


def _skip(text: str, at: int, blanks: str = " \t\r\n") -> int:
    while at < len(text) and text[at] in blanks:
        at += 1
    return at


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end == -1 else end
