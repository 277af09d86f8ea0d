"""Models on the Hugging Face hub: reading by id, uploading, and hub errors as one line.

huggingface_hub does the work and reads its own variables: HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN.
"""

from __future__ import annotations

import functools
import glob
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proctool.errors import HubError, first_line
from proctool.paths import is_path

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*"
_ID = re.compile(rf"(?P<repository>{_REPOSITORY})(@(?P<revision>[\w.-]+(/[\w.-]+)*))?", re.ASCII)
_OF_FILES = (".safetensors", ".json", ".yaml", ".yml", ".jsonl", ".bin", ".pt", ".pth")
"""Suffixes of file names: a name with one of them is a file, even if it does not exist."""

CONFIGURATION, INDEX = "config.json", "model.safetensors.index.json"
_NEVER = ("*/*", "consolidated*.safetensors")
"""Files that are not downloaded: subfolders, and the second copy of the weights in some repositories."""


@dataclass(frozen=True)
class ModelId:
    """`OWNER/NAME` or `OWNER/NAME@REVISION`."""

    repository: str
    revision: str | None = None
    """A branch, a tag or a commit; None for the main branch."""

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


@dataclass(frozen=True)
class HubModel:
    """A model of the hub in the local hub cache."""

    repository: str
    commit: str
    """The full hash of the commit that was read."""
    folder: Path

    def __str__(self) -> str:
        return f"{self.repository}@{self.commit[:12]}"


def model_id(written: str | Path) -> ModelId | None:
    """The model id that `written` names; None for a path. An existing file or folder is always a path."""
    if (found := _ID.fullmatch(str(written))) is None:
        return None
    repository = found["repository"]
    return None if is_path(repository) or repository.endswith(_OF_FILES) else ModelId(repository, found["revision"])


@functools.cache  # a process must see one commit even if the hub changes
def fetch(wanted: ModelId, patterns: tuple[str, ...]) -> HubModel:
    """Download the files of a model that match one of the `patterns`, without subfolders.

    Files in the hub's cache are not downloaded again. Raises HubError, OSError.
    """
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            wanted.repository, revision=wanted.revision, allow_patterns=list(patterns), ignore_patterns=list(_NEVER)
        )
    except Exception as error:  # the client, the network and the disk raise different errors
        if isinstance(error, OSError) and error.filename and trouble_of(error) is Trouble.OTHER:
            raise  # the disk is full, or the cache is not writable
        raise HubError(f"{wanted}: no such file or folder here, and {_unread(wanted, error)}") from None
    if not (Path(folder) / CONFIGURATION).is_file():
        raise HubError(f"{wanted}: has no config.json on the hub; give a model in transformers format")
    return HubModel(wanted.repository, Path(folder).name, Path(folder))


def _unread(wanted: ModelId, error: BaseException) -> str:
    from huggingface_hub import constants

    match trouble_of(error):
        case Trouble.OFFLINE:
            return (
                f"{constants.HF_HUB_CACHE} does not have all of its files and offline mode is on; unset "
                "HF_HUB_OFFLINE to download them"
            )
        case Trouble.NO_REVISION:
            return f'the hub has no revision "{wanted.revision}" of this model'
        case Trouble.NOT_FOUND:
            return "no such model on the hub, or no access to it; check the name, or run `hf auth login`"
        case Trouble.REFUSED:
            return f"the hub refuses access; ask for access on {constants.ENDPOINT}/{wanted}, then run `hf auth login`"
        case Trouble.UNREACHABLE:
            return f"the hub cannot be reached ({reason_of(error)}); try again, or give a local folder"
    return f"the hub's client failed: {reason_of(error)}"


# -- writing --


def require_pushable(repository: str) -> None:
    """Raise HubError if a push cannot succeed: invalid name, offline mode, no token."""
    import huggingface_hub

    if not re.fullmatch(_REPOSITORY, repository, re.ASCII):
        raise HubError(f"--push-to-hub {repository}: write OWNER/NAME, such as your user name and the model's name")
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise HubError(f"--push-to-hub {repository}: offline mode is on; unset HF_HUB_OFFLINE")
    if not huggingface_hub.get_token():
        raise HubError(f"--push-to-hub {repository}: no token; run `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repository: str, *, private: bool = False, message: str = "Upload model") -> str:
    """Upload an exported folder as one commit and return the URL of the model.

    Creates the repository if it does not exist. In an existing one, weight files that the folder does not have are
    deleted, because a model with two sets of weights cannot be loaded. Raises HubError; the folder never changes.
    """
    import huggingface_hub

    api, is_new = huggingface_hub.HfApi(), False
    try:
        is_new = _created(api, repository, private)
        if not is_new:
            _require_ours(api, repository, private)
        weights = [name for name in api.list_repo_files(repository) if _is_weights(name)] if not is_new else []
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=message,
            delete_patterns=[glob.escape(name) for name in weights] or None,
        )
    except Exception as error:
        why = str(error) if isinstance(error, HubError) else _unwritten(error)
        left = "the new repository is empty" if is_new else "nothing was uploaded"
        raise HubError(
            f"{repository}: {why}; {left}. {folder} is complete; upload it with `hf upload {repository} {folder}`"
        ) from None
    return f"{huggingface_hub.constants.ENDPOINT}/{repository}"


def _is_weights(name: str) -> bool:
    return "/" not in name and (name.endswith(".safetensors") or name == INDEX)


def _created(api: HfApi, repository: str, private: bool) -> bool:
    """Create the repository; whether it is new. False if it exists or this token cannot create one."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repository, private=private or None)
    except HfHubHTTPError as error:
        if error.response.status_code not in (403, 409):
            raise
        if error.response.status_code == 403 and not api.repo_exists(repository):
            raise
        return False
    return True


def _require_ours(api: HfApi, repository: str, private: bool) -> None:
    """Raise HubError unless the existing repository is a model, and private if `private`."""
    if not api.repo_exists(repository):
        others = (kind for kind in ("dataset", "space") if api.repo_exists(repository, repo_type=kind))
        kind = next(others, "repository of another type")
        raise HubError(f"the name is taken by a {kind}; choose another name")
    if private and not api.model_info(repository).private:
        raise HubError("exists and is public, but --private is only for new repositories; choose another name")


def _unwritten(error: BaseException) -> str:
    match trouble_of(error):
        case Trouble.REFUSED:
            return "the hub refuses this token; use one with write access (`hf auth login`)"
        case Trouble.NOT_FOUND:
            return "this token has no access to the repository; use one with write access (`hf auth login`)"
        case Trouble.OFFLINE | Trouble.UNREACHABLE:
            return f"the hub cannot be reached ({reason_of(error)})"
    return f"the hub's client failed ({reason_of(error)})"


# -- what went wrong --


class Trouble(Enum):
    """The meaning of an error of huggingface_hub, datasets or the network."""

    OFFLINE = "offline mode is on"
    NO_REVISION = "the repository has no such revision"
    REFUSED = "access denied"
    NOT_FOUND = "no such repository, or no access to it"
    UNREACHABLE = "no answer"
    OTHER = "another error"


def trouble_of(error: BaseException) -> Trouble:
    """The meaning of an error, from the error and its causes."""
    chain = list(_causes(error))
    names = {base.__name__ for cause in chain for base in type(cause).__mro__}
    codes = {getattr(getattr(cause, "response", None), "status_code", None) for cause in chain}
    if "OfflineModeIsEnabled" in names:
        return Trouble.OFFLINE
    if "RevisionNotFoundError" in names:
        return Trouble.NO_REVISION
    if "GatedRepoError" in names or "DisabledRepoError" in names:
        return Trouble.REFUSED
    if any("NotFound" in name for name in names - {"LocalEntryNotFoundError", "EntryNotFoundError", _NO_FILE}):
        return Trouble.NOT_FOUND
    if codes & {401, 402, 403}:
        return Trouble.REFUSED
    if "LocalEntryNotFoundError" in names or codes & set(range(500, 600)):
        return Trouble.UNREACHABLE
    if any(word in name for name in names for word in ("Connect", "Timeout", "NetworkError", "RemoteProtocol")):
        return Trouble.UNREACHABLE
    return Trouble.OTHER


_NO_FILE = FileNotFoundError.__name__


def reason_of(error: BaseException) -> str:
    """The message of an error's first cause, in one line."""
    return first_line(list(_causes(error))[-1])


def _causes(error: BaseException) -> Iterator[BaseException]:
    def walk() -> Iterator[BaseException]:
        seen: Any = error
        while seen is not None:
            yield seen
            seen = seen.__cause__ or seen.__context__

    return itertools.islice(walk(), 8)
