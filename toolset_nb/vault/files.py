"""The files of a vault: the one door through which every path that a model wrote has to pass.

Protects against: paths that leave the vault (`..`, absolute, drives, streams, look-alike dots), links of any kind on the way,
also when one is put there between check and use (every folder is opened from its parent, without following links), FIFOs
and devices, names that other systems cannot hold, two names that differ in case only, oversized files, half-written files
(a temporary file takes the place of the old one in one step) and half-done calls (`rollback`).
Does not protect against: a program of the same user that edits the vault at the same moment outside our lock, code that runs
in notes (nothing here runs any), or, on Windows, a folder exchanged for a link between check and use.
"""

import errno
import os
import re
import shutil
import stat
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from toolset_nb.errors import ToolsetError

OWN = ".toolset_nb"
TRASH = ".trash"
DENIED = {".git", ".obsidian", TRASH, OWN}
MOST_PATH_BYTES, MOST_SEGMENT_BYTES = 1024, 255
MOST_FILE_BYTES, MOST_WRITE_BYTES = 1 << 20, 256 << 10
HALF_CHARACTER = "a text holds half a character (a lone surrogate) and cannot be stored"

FOREIGN = re.compile(r"\\|^~|^[A-Za-z]:(\S|$)|\.\w+:\S|^[A-Za-z][\w+.-]*:/")  # other systems, streams, addresses
DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])\s*(?:\.|$)", re.I)
REPLACED = str.maketrans(dict.fromkeys('<>:"|?*', "_"))
EXTENSION = re.compile(r"\.(?=\w*[A-Za-z])\w+$")
AT = os.open in os.supports_dir_fd  # not on Windows
FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
FILE_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class VaultError(ToolsetError):
    """A call that cannot be done: a stable code (NOT_FOUND, EXISTS, ...) and a sentence."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class Entry(NamedTuple):
    """A file or folder of the vault; size in bytes, modified in milliseconds since 1970."""

    path: str
    is_folder: bool
    size: int
    modified: int
    stamp: tuple


def clean(path: str, note: bool = False, root: bool = False) -> str:
    """Return a model's path as it is used: relative, with `/`, NFC; raises VaultError INVALID_PATH.

    `note` adds `.md` where an extension is missing; `root` allows the vault itself (as "").
    Rules: the plugin's own normalisation, then those of Nexus' vaultPath.ts.
    """
    if any(unicodedata.category(char) in ("Cc", "Cs") for char in path):
        raise VaultError("INVALID_PATH", f"{path!r:.80}: control characters cannot stand in a path")
    if root and path in ("", "/", "."):
        return ""
    path = unicodedata.normalize("NFC", path)
    if FOREIGN.search(path):
        raise VaultError("INVALID_PATH", f"{path!r:.80}: expected a path inside the vault such as Folder/Note.md")
    segments = [segment.translate(REPLACED) for segment in path.split("/") if segment]
    if not segments:
        raise VaultError("INVALID_PATH", f"{path!r}: the vault itself cannot be used here")
    if note and not EXTENSION.search(segments[-1]):
        segments[-1] += ".md"
    for segment in segments:
        _judge(segment, path)
    if len("/".join(segments).encode()) > MOST_PATH_BYTES:
        raise VaultError("INVALID_PATH", f"{path!r:.80}: longer than {MOST_PATH_BYTES} bytes")
    return "/".join(segments)


def _judge(segment: str, path: str) -> None:
    plain = unicodedata.normalize("NFKC", unquote(segment))
    folded = plain.casefold().strip(" .")
    if not folded or "/" in plain or "\\" in plain:
        fault = "dots or spaces alone are no name"
    elif segment != segment.rstrip(" ") or (segment.endswith(".") and not segment.endswith("..")):
        fault = "a name cannot end with a dot or a space"
    elif f".{folded}" in DENIED and plain.lstrip(" ").startswith("."):
        fault = "this folder is not part of the notes"
    elif DEVICES.match(plain):
        fault = "the name is reserved on some systems"
    elif len(segment.encode()) > MOST_SEGMENT_BYTES:
        fault = f"a name is longer than {MOST_SEGMENT_BYTES} bytes"
    else:
        return
    raise VaultError("INVALID_PATH", f"{path!r:.80}: {fault}")


class Tree:
    """The folder of a vault. Paths are those that `clean` returned; times are milliseconds since 1970."""

    def __init__(self, root: Path | str, durable: bool = True, read_only: bool = False):
        self.root = Path(root).resolve(strict=True)
        self.durable = durable
        self.now = 0
        self._undo: list[Callable[[], None]] = []
        self.own = self.root / OWN
        for folder in (self.own, self.own / "tmp"):
            if not read_only:
                folder.mkdir(exist_ok=True)
            elif not folder.exists():
                continue
            if folder.is_symlink() or not folder.is_dir():
                raise VaultError("INVALID_PATH", f"{folder} must be a real folder")

    def commit(self) -> None:
        """Keep what was done since the last commit."""
        self._undo.clear()

    def mark(self) -> int:
        """A point that `rollback` can go back to."""
        return len(self._undo)

    def rollback(self, mark: int = 0) -> None:
        """Take back what was done since the last commit, or since a mark, last first."""
        while len(self._undo) > mark:
            self._undo.pop()()

    def kind(self, path: str) -> str | None:
        """`file`, `folder` or None; raises VaultError for links, devices and hard links."""
        if not path:
            return "folder"
        try:
            with self._at(path) as (fd, name):
                return self._kind(fd, name, path)
        except VaultError as error:
            if error.code in ("NOT_FOUND", "NOT_FOLDER"):
                return None
            raise

    def need(self, path: str, kind: str) -> None:
        """Raise VaultError unless there is a `file` or `folder` at the path."""
        found = self.kind(path)
        if found is None:
            raise VaultError("NOT_FOUND", f"{kind.capitalize()} not found: {path}")
        if found != kind:
            raise VaultError("IS_FOLDER" if found == "folder" else "NOT_FOLDER", f"{path} is a {found}, not a {kind}")

    def read(self, path: str) -> str:
        """The text of a file, line endings as they are; raises VaultError NOT_TEXT for anything but UTF-8."""
        try:
            text = self.read_bytes(path).decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise VaultError("NOT_TEXT", f"{path} is not a text file")
        return text

    def read_bytes(self, path: str) -> bytes:
        """The content of a regular file of 1 MB or less."""
        try:
            with self._at(path) as (fd, name):
                handle = os.open(name, FILE_FLAGS, dir_fd=fd)
        except (OSError, VaultError) as error:
            self.need(path, "file")
            raise error if isinstance(error, VaultError) else _refused(error, path) from None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                self.need(path, "file")
                raise VaultError("INVALID_PATH", f"{path} is not a plain file")
            with open(handle, "rb", closefd=False) as file:
                content = file.read(MOST_FILE_BYTES + 1)
        finally:
            os.close(handle)
        if len(content) > MOST_FILE_BYTES:
            raise VaultError("LIMIT", f"{path} is larger than {MOST_FILE_BYTES >> 20} MB")
        return content

    def write(self, path: str, content: str | bytes, new: bool = False) -> None:
        """Put content in place of a file in one step; parents are made. `new` refuses an existing entry."""
        data = content.encode("utf-8") if isinstance(content, str) else content
        if len(data) > MOST_FILE_BYTES:
            raise VaultError("LIMIT", f"{path} would be larger than {MOST_FILE_BYTES >> 20} MB")
        found = self.kind(path)
        if new and found or found == "folder":
            raise VaultError("EXISTS" if new else "IS_FOLDER", f"There is already a {found} at {path}")
        old = self.read_bytes(path) if found else None
        with self._at(path, make=True) as (fd, name):
            time = os.stat(name, dir_fd=fd).st_mtime_ns if found else 0
            if not found:
                self._no_twin(fd, name, path)
            self._place(data, name, fd)
        self._undo.append(lambda: self.remove(path) if old is None else self._restore(path, old, time))

    def make_folder(self, path: str) -> bool:
        """Make a folder and its parents; False if it was there. Raises VaultError EXISTS where a file is."""
        if (found := self.kind(path)) == "folder":
            return False
        if found:
            raise VaultError("EXISTS", f"There is already a file at {path}")
        with self._at(f"{path}/x", make=True):
            return True

    def move(self, source: str, target: str, parents: bool = True) -> None:
        """Rename an entry; the target must be free. Raises VaultError."""
        if found := self.kind(target):
            raise VaultError("EXISTS", f"There is already a {found} at {target}")
        if target.startswith(f"{source}/"):
            raise VaultError("INVALID", f"{source} cannot be moved into itself")
        with self._at(source) as (source_fd, old), self._at(target, make=parents) as (fd, new):
            same_folder = source.rpartition("/")[0] == target.rpartition("/")[0]
            self._no_twin(fd, new, target, besides=old if same_folder else "")
            try:
                os.rename(old, new, src_dir_fd=source_fd, dst_dir_fd=fd)
            except OSError as error:
                raise _refused(error, source) from None
        self._undo.append(lambda: self._raw_move(target, source))

    def trash(self, path: str) -> str:
        """Move an entry to the vault's trash; returns its path there."""
        name = path.rpartition("/")[2]
        stem, suffix = os.path.splitext(name)
        (self.root / TRASH).mkdir(exist_ok=True)
        number, entry = 1, f"{TRASH}/{name}"
        while os.path.lexists(self.root / entry):
            number += 1
            ending = f" {number}{suffix}"
            room = max(1, MOST_SEGMENT_BYTES - len(ending.encode()))
            entry = f"{TRASH}/{stem.encode()[:room].decode(errors='ignore')}{ending}"
        self._raw_move(path, entry)
        self._undo.append(lambda: self._raw_move(entry, path))
        return entry

    def remove(self, path: str) -> None:
        """Delete one file or empty folder for good; only for what we made ourselves."""
        with self._at(path) as (fd, name):
            (os.rmdir if self._kind(fd, name, path) == "folder" else os.unlink)(name, dir_fd=fd)

    def children(self, path: str = "") -> list[Entry]:
        """The visible entries of one folder, by name. Links, devices and names that start with a dot are left out."""
        return list(self.walk(path, 0))

    def is_empty(self, path: str) -> bool:
        """Whether a folder holds nothing at all, hidden entries and links counted too."""
        with self._at(f"{path}/x") as (fd, _), os.scandir(fd if AT else self.root / path) as entries:
            return next(entries, None) is None

    def walk(self, path: str = "", depth: int | None = None, hidden: bool = False) -> Iterator[Entry]:
        """Every visible entry below a folder, folders before their content; `depth` 0 gives the children only.

        `hidden` gives the names that start with a dot, too, as far as a path may lead there.
        """
        self.need(path, "folder")
        with self._at(f"{path}/x" if path else "x") as (fd, _):
            yield from self._walk(fd, path, depth, hidden)

    def _walk(self, fd: int | None, path: str, depth: int | None, hidden: bool) -> Iterator[Entry]:
        with os.scandir(fd if AT else self.root / path) as entries:
            shown = [e for e in entries if e.name[0] != "." or hidden and e.name.casefold() not in DENIED]
            found = [self._entry(path, entry) for entry in shown if _is_text(entry.name)]
        for entry in sorted(entry for entry in found if entry):
            yield entry
            if not entry.is_folder or depth == 0:
                continue
            try:
                inner = os.open(entry.path.rpartition("/")[2], FOLDER_FLAGS, dir_fd=fd) if AT else None
            except OSError:  # gone, or a link by now
                continue
            try:
                yield from self._walk(inner, entry.path, None if depth is None else depth - 1, hidden)
            finally:
                if AT:
                    os.close(inner)

    def mirror(self, folder: Path, seen: dict[str, tuple[tuple, tuple]]) -> None:
        """Make a private folder hold what calls can reach and the state; only files that are not as `seen` has them are copied.

        `seen` is what the last time gave, the stamps of source and copy by path, and is brought up to date. The trash is empty
        in a mirror, and a file that is too large for every tool has its size but no content (NTFS gives it the room all the same).
        """
        for name in (OWN, TRASH):
            with suppress(FileNotFoundError):
                shutil.rmtree(Path(folder) / name)
        mirror = Tree(folder, durable=False)
        for file in self.own.glob("*.json*"):
            if not file.is_symlink():
                shutil.copyfile(file, mirror.own / file.name)
        wanted, there = ({entry.path: entry for entry in tree.walk(hidden=True)} for tree in (self, mirror))
        for path in reversed(there):  # content before its folder
            if path not in wanted or wanted[path].is_folder != there[path].is_folder:
                mirror.remove(path)
        for path, entry in wanted.items():
            target = f"{mirror.root}/{path}"
            if entry.is_folder:
                os.makedirs(target, exist_ok=True)
            elif path not in there or seen.get(path) != (entry.stamp, there[path].stamp):
                readable = entry.size <= MOST_FILE_BYTES
                with open(target, "wb") as file:
                    file.write(self.read_bytes(path)) if readable else file.truncate(entry.size)
                os.utime(target, ns=(entry.stamp[0],) * 2)
        seen.clear()
        seen.update({entry.path: (wanted[entry.path].stamp, entry.stamp) for entry in mirror.walk(hidden=True)})

    def own_file(self, name: str, data: bytes) -> None:
        """Replace a file of our own state folder in one step."""
        self._place(data, str(self.own / name), None)

    def _restore(self, path: str, data: bytes, time: int) -> None:
        with self._at(path) as (fd, name):
            self._place(data, name, fd, time)

    def _place(self, data: bytes, name: str, fd: int | None, time: int | None = None) -> None:
        draft = self.own / "tmp" / uuid.uuid4().hex
        try:
            with open(draft, "xb") as file:
                file.write(data)
                if self.durable:
                    file.flush()
                    os.fsync(file.fileno())
            with suppress(FileNotFoundError):
                os.chmod(draft, os.stat(name, dir_fd=fd).st_mode & 0o777)
            os.utime(draft, ns=(self.now * 1_000_000 if time is None else time,) * 2)
            os.replace(draft, name, dst_dir_fd=fd)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def _raw_move(self, source: str, target: str) -> None:
        with self._at(source) as (source_fd, old), self._at(target, make=True) as (fd, new):
            os.rename(old, new, src_dir_fd=source_fd, dst_dir_fd=fd)

    @contextmanager
    def _at(self, path: str, make: bool = False) -> Iterator[tuple[int | None, str]]:
        """Open the folder of an entry step by step, no link followed; yields it with the entry's name on disk."""
        *parents, last = path.split("/")
        fd, so_far = (os.open(self.root, FOLDER_FLAGS), "") if AT else (None, str(self.root))
        try:
            for index, segment in enumerate(parents):
                here = "/".join(parents[: index + 1])
                name = self._on_disk(fd, segment, so_far)
                try:
                    inner = self._enter(fd, name, here)
                except FileNotFoundError:
                    if not make:
                        raise VaultError("NOT_FOUND", f"Folder not found: {here}") from None
                    self._no_twin(fd, name, here)
                    os.mkdir(name, dir_fd=fd)
                    self._undo.append(lambda made=here: self.remove(made))
                    inner = self._enter(fd, name, here)
                if AT:
                    os.close(fd)
                fd, so_far = inner, name
            yield fd, self._on_disk(fd, last, so_far)
        finally:
            if fd is not None:
                os.close(fd)

    def _enter(self, fd: int | None, name: str, path: str) -> int | None:
        """Open one folder further, no link followed; raises FileNotFoundError or VaultError."""
        try:
            if AT:
                return os.open(name, FOLDER_FLAGS, dir_fd=fd)
            os.lstat(name)
        except FileNotFoundError:
            raise
        except OSError as error:
            if self._kind(fd, name, path) != "file":
                raise _refused(error, path) from None
        if self._kind(fd, name, path) == "file":
            raise VaultError("NOT_FOLDER", f"{path} is a file, not a folder")
        return None

    def _on_disk(self, fd: int | None, name: str, folder: str) -> str:
        """The name as the disk has it: macOS and old archives store decomposed letters."""
        place = name if AT else os.path.join(folder, name)
        if not name.isascii() and not _exists(place, fd):
            for other in os.listdir(fd if AT else folder):
                if unicodedata.normalize("NFC", other) == name:
                    return other if AT else os.path.join(folder, other)
        return place

    def _kind(self, fd: int | None, name: str, path: str) -> str | None:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(status.st_mode):
            return "folder"
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise VaultError("INVALID_PATH", f"{path} is a link or a device, not a plain file or folder")
        return "file"

    def _no_twin(self, fd: int | None, name: str, path: str, besides: str = "") -> None:
        folder, wanted = os.path.split(name)
        for other in os.listdir(fd if AT else folder):
            if other not in (besides, wanted) and folded(other) == folded(wanted):
                raise VaultError("EXISTS", f"{path} and the existing {other} differ in case only")

    def _entry(self, folder: str, entry: os.DirEntry) -> Entry | None:
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir(follow_symlinks=False):
            return Entry(path, True, 0, 0, ())
        if not entry.is_file(follow_symlinks=False):
            return None
        status = entry.stat(follow_symlinks=False)
        if status.st_nlink > 1:
            return None
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        return Entry(path, False, status.st_size, status.st_mtime_ns // 1_000_000, stamp)


def _is_text(name: str) -> bool:
    """Whether a name is UTF-8 on disk; no call could name another, and no result could hold it."""
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def _exists(name: str, fd: int | None) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True


def folded(text: str) -> str:
    """A text for comparing: composed letters, no capitals."""
    return unicodedata.normalize("NFC", text).casefold()


def _refused(error: OSError, path: str) -> VaultError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
        return VaultError("INVALID_PATH", f"{path} is a link or a device, not a plain file or folder")
    return VaultError("IO_ERROR", f"{path}: {error.strerror}")
