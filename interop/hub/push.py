"""Publishing a model's folder as one commit on the Hugging Face hub."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pairform.assemblies.checkpoints.reading.file_names import CARD
from pairform.assemblies.checkpoints.reading.hub import local_folder, repository
from pairform.assemblies.checkpoints.reading.hub_errors import Repository, hub_errors
from pairform.interop.hub.contents import Upload, kept_card, obsolete, uploads
from pairform.interop.hub.licences import check_license
from pairform.registry import PATH, CheckpointError, InputError, OutputError, Problem, shorten

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

MAIN = "main"
IGNORE_NOTHING = "# all files are sent\n"
"""In the place of the repository's .gitignore, which would leave files out in silence."""
Card = Literal["keep", "replace"]


@dataclass(frozen=True)
class Published:
    """The result of `push`.

    Attributes:
        repository: the hub id.
        revision: the branch.
        commit: None if nothing was sent, as asked.
        url: of the model at that commit, or of the repository.
        files: name -> size in bytes, of the files that were sent or there already; without a card that was kept there.
        removed: files of the model that was replaced which the new one has not.
    """

    repository: str
    revision: str
    commit: str | None
    url: str
    files: Mapping[str, int]
    removed: tuple[str, ...] = ()


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    license: str | None = None,
    card: Card = "keep",
    dry_run: bool = False,
    token: str | None = None,
) -> Published:
    """Publish a model's folder on the hub, as one commit: other readers see all of it or nothing.

    The folder is checked first; files that are not a model's are an error. Files that the hub has already are not sent again,
    so a push that was interrupted continues where it stopped. A file of the repository's model that the new one does not have
    is removed; other files there stay.

    Args:
        folder: a model's folder, in pairform's format or transformers'.
        repo: the hub id `owner/name`. A repository that does not exist is created.
        private: whether the repository is private. Default: as it is; a new one is public, unless its organisation has another
            default.
        revision: the branch; one that does not exist is created from `main`. Default: `main`.
        message: of the commit.
        license: as for `model_card`.
        card: "keep" keeps a README.md, of the folder or else of the repository, and writes one if there is none; "replace"
            writes a new one.
        dry_run: check the folder and list its files; nothing is sent, and the hub is not asked.
        token: of the hub. Default: that of `hf auth login`, or of the variable HF_TOKEN.

    Returns:
        The repository, the branch, the commit and its files.

    Raises:
        CheckpointError, SpecError: the folder holds no model.
        OutputError: its files are not a model's, or the hub does not take them; the branch is then as it was,
            unless the error names the new commit.
        InputError: another argument is invalid.
    """
    source = local_folder(folder)
    if source is None:
        raise CheckpointError(Problem(shorten(str(folder), PATH), "no such folder", "a model's folder"))
    if card not in ("keep", "replace"):
        raise InputError(Problem("card", shorten(card), "keep or replace"))
    if message is not None and (not isinstance(message, str) or not message.strip()):
        raise InputError(Problem("message", shorten(message), "a commit message"))
    if private is not None and not isinstance(private, bool):
        raise InputError(Problem("private", shorten(private), "true, false or nothing"))
    target = repository(repo, revision)
    files = {each.name: each for each in uploads(source, target.name, check_license(license), card == "replace")}
    sizes = {name: each.size for name, each in files.items()}
    if dry_run:
        return Published(target.name, target.revision or MAIN, None, target.url, sizes)
    made_card = card == "keep" and not (source / CARD).exists()
    from huggingface_hub import HfApi

    api = HfApi(token=token, library_name="pairform")
    with hub_errors(target, OutputError):
        push = Push(api, target)
        push.open(private)
        if made_card and CARD in push.there:
            if license is not None:
                raise kept_card(f"{target.url}/blob/{push.branch}/{CARD}")
            del files[CARD]
        return push.send(files, message or f"Publish {target.name}")


class Push:
    """One push.

    heads: the last commit of each branch, after `open`.
    start: the commit that the new one follows; None in a repository without commits.
    there: the repository's files at `start`.
    """

    def __init__(self, api: "HfApi", target: Repository) -> None:
        self.api, self.target = api, target
        self.name, self.branch = target.name, target.revision or MAIN
        self.heads: dict[str, str] = {}
        self.start: str | None = None
        self.there: dict[str, RepoFile] = {}

    def open(self, private: bool | None) -> None:
        """Look at the repository, which is created unless it exists. Its visibility is checked before anything is sent."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            found = self.api.model_info(self.name)
        except RepositoryNotFoundError:
            self.api.create_repo(self.name, private=private)
            found = self.api.model_info(self.name)
        if private is not None and bool(found.private) != private:
            kinds = {True: "a private repository", False: "a public repository"}
            remedy = f"Nothing was sent. Change it at {self.target.url}/settings, or ask for {kinds[not private]}."
            raise OutputError(Problem(self.name, kinds[not private], kinds[private], remedy))
        self.heads = self.branches()
        self.start = self.heads.get(self.branch, self.heads.get(MAIN))
        self.there = self.listing(self.start)

    def send(self, files: dict[str, Upload], message: str) -> Published:
        """Send the files, then make one commit of them."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        additions = [
            CommitOperationAdd(each.name, each.content if isinstance(each.content, bytes) else str(each.content))
            for each in files.values()
        ]
        removed = obsolete([*self.there], files)
        known = self.branch in self.heads
        base = self.branch if known else MAIN
        self.api.preupload_lfs_files(self.name, additions, revision=base, gitignore_content=IGNORE_NOTHING, free_memory=False)
        if left_out := [each.path_in_repo for each in additions if each._should_ignore]:
            found = f"a .gitignore that leaves out {', '.join(left_out[:8])}"
            raise OutputError(Problem(self.name, found, "one that leaves out no file of a model", "Remove it there."))
        with self.new_branch(known):
            commit = self.api.create_commit(
                self.name,
                [*additions, *(CommitOperationDelete(name) for name in removed)],
                commit_message=message,
                revision=self.branch,
                parent_commit=self.start,
            )
        self.check(files, commit.oid)
        sizes = {name: each.size for name, each in files.items()}
        url = f"{self.target.url}/tree/{commit.oid}"
        return Published(self.name, self.branch, commit.oid, url, sizes, tuple(removed))

    @contextmanager
    def new_branch(self, known: bool) -> Iterator[None]:
        """The branch, which is removed again if it is new, the block fails, and nobody has committed to it."""
        if known or self.start is None:
            yield
            return
        self.api.create_branch(self.name, branch=self.branch, revision=self.start)
        try:
            yield
        except BaseException:
            with suppress(Exception):
                if self.branches()[self.branch] == self.start:
                    self.api.delete_branch(self.name, branch=self.branch)
            raise

    def branches(self) -> dict[str, str]:
        """The last commit of each branch; `OutputError` if a tag has the name of ours."""
        refs = self.api.list_repo_refs(self.name)
        if self.branch in {tag.name for tag in refs.tags}:
            raise OutputError(Problem(self.name, f"the tag {self.branch!r}", "a branch", "Choose another revision."))
        return {branch.name: branch.target_commit for branch in refs.branches}

    def listing(self, commit: str | None) -> "dict[str, RepoFile]":
        """The files of the repository at a commit."""
        from huggingface_hub.hf_api import RepoFile

        if commit is None:
            return {}
        tree = self.api.list_repo_tree(self.name, recursive=True, revision=commit)
        return {item.path: item for item in tree if isinstance(item, RepoFile)}

    def check(self, files: Mapping[str, Upload], commit: str) -> None:
        """Check that a commit holds the files as they were sent."""
        there = self.listing(commit)
        if wrong := [name for name, each in files.items() if name not in there or there[name].size != each.size]:
            found = f"{', '.join(wrong[:8])} missing or of another size in the commit {commit}"
            raise OutputError(
                Problem(self.name, found, "all files as they were sent", "Did they change meanwhile? Push again.")
            )
