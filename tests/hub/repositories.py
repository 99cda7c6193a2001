"""What a hub stores: repositories with branches and commits, and large files by their SHA-256."""

import fnmatch
import hashlib
from dataclasses import dataclass, field


@dataclass
class Repository:
    """files: of each commit, path -> content."""

    private: bool = False
    gated: bool = False
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        """Make a commit of these files the head of a branch."""
        oid = hashlib.sha1(f"{len(self.files)} {branch}".encode()).hexdigest()
        self.files[oid] = files
        self.branches[branch] = oid
        self.messages.append(message)
        return oid

    def find(self, revision: str) -> str | None:
        """The commit of a branch, tag or commit."""
        found = self.branches.get(revision) or self.tags.get(revision) or revision
        return found if found in self.files else None

    @property
    def main(self) -> dict[str, bytes]:
        return self.files[self.branches["main"]]


def mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


def oid(path: str, content: bytes) -> str:
    """As the hub compares files: SHA-256 of large ones, git's SHA-1 of others."""
    if mode(path) == "lfs":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def tree_item(path: str, content: bytes) -> dict[str, object]:
    item: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": oid(path, content)}
    if mode(path) == "lfs":
        item["lfs"] = {"oid": oid(path, content), "size": len(content), "pointerSize": 130}
    return item


def ignored(path: str, gitignore: str) -> bool:
    return any(fnmatch.fnmatch(path, line) for line in gitignore.split() if not line.startswith("#"))
