"""Repositories of the Hugging Face Hub by name and revision: "owner/name@revision" wherever "owner/name" is read.

A revision is a branch, a tag, a commit, or a pull request as refs/pr/N. Only files that are asked for by name are
fetched, and never a pickle.
Try it: split_revision("google/switch-base-8@refs/pr/5")
"""

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from switch_model.storage.errors import CheckpointError

NAME = re.compile(r"(?P<id>[\w.-]+(?:/[\w.-]+)?)@(?P<revision>[^@\s]+)")
# Of pull requests that seem to bring safetensors, those that are looked into.
LOOKED_INTO = 5
WITH_SAFETENSORS = "google/switch-base-32"
UNREACHABLE = (
    "the Hugging Face Hub could not be reached. Is this machine online, and HF_HUB_OFFLINE unset? Or download the "
    "repository elsewhere and give its folder."
)


def split_revision(name: str | Path, revision: str | None = None) -> tuple[str, str | None]:
    """A name and its revision, which may be part of the name; None = main.

    Raises CheckpointError for two revisions, and for a revision of what lies on this disk.
    """
    name = str(name)
    if Path(name).exists():
        if revision:
            raise CheckpointError(
                f"{name} lies on this disk and has no revision {revision!r}: revisions are those of a repository on "
                "the Hugging Face Hub."
            )
        return name, None
    found = NAME.fullmatch(name)
    if found is None:
        return name, revision
    if revision not in (None, found["revision"]):
        raise CheckpointError(f"{name} names a revision already, and another one is asked for: {revision}.")
    return found["id"], found["revision"]


def with_revision(name: str, revision: str | None) -> str:
    """A name with its revision: what stands for both wherever one name is given. Raises CheckpointError as
    `split_revision` does."""
    name, revision = split_revision(name, revision)
    return f"{name}@{revision}" if revision else name


def short_name(name: str | Path) -> str:
    """What a checkpoint is called in titles: the last part of its path or name, without its revision."""
    return Path(split_revision(name)[0]).name


def download(name: str, files: Sequence[str], what: str = "no folder, no zip") -> Path:
    """The folder of a repository's files that are asked for. Raises CheckpointError when there is no such repository.

    Args:
        name: with or without a revision.
        files: their names, or patterns.
        what: else the name stands for nothing, in words.
    """
    hub_id, revision = split_revision(name)
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # The hub client raises many kinds; each means that there is no such checkpoint here.
        if revision and lacks_revision(error):
            raise CheckpointError(no_revision(hub_id, revision)) from error
        if is_unreachable(error):
            raise CheckpointError(f"There is no checkpoint at {name!r}: it is {what}, and {UNREACHABLE}") from error
        raise CheckpointError(
            f"There is no checkpoint at {name!r}: it is {what}, and the Hugging Face Hub gave none."
        ) from error


def lacks_revision(error: BaseException | None) -> bool:
    """Whether the Hub has the repository that was asked for, and not the revision."""
    while error is not None:
        if isinstance(error, RevisionNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_unreachable(error: BaseException | None) -> bool:
    """Whether the Hub was not asked at all, or did not answer: nobody knows then what it has."""
    found = False
    while error is not None:
        if isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError)):
            return False
        # The hub client has changed its HTTP library more than once; each calls its base class so.
        names = {kind.__name__ for kind in type(error).__mro__}
        found |= isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError))
        found |= "TransportError" in names
        error = error.__cause__ or error.__context__
    return found


def is_missing(error: BaseException | None) -> bool:
    """Whether the Hub was asked and has no such repository, or none that whoever asked may see."""
    while error is not None:
        if isinstance(error, RepositoryNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_within_reach(hub_id: str) -> bool:
    """Whether the Hub answers at all, asked once: its client tries for most of a minute to fetch a single file."""
    try:
        HfApi().model_info(hub_id, timeout=10)
    except Exception as error:
        return not is_unreachable(error)
    return True


def no_revision(hub_id: str, revision: str) -> str:
    return (
        f"{hub_id} is on the Hugging Face Hub, but has no revision {revision!r}: name a branch, a tag, a commit, or a "
        "pull request as refs/pr/N."
    )


def without_pickles(name: str) -> str:
    """What to do about a repository without safetensors, in a sentence or two: a pull request there that has them, if
    the Hub tells of one."""
    never = "Pickled weights (.bin, .pt) are never opened here: they can run code."
    hub_id, _ = split_revision(name)
    if Path(hub_id).exists():
        return never
    if found := conversion_of(hub_id):
        return f"{never} A pull request there holds safetensors: --revision {found}, or {hub_id}@{found} as its name."
    return (
        f"{never} Perhaps a pull request there holds safetensors: --revision refs/pr/N. {WITH_SAFETENSORS}, for one, "
        "has them as it is."
    )


def conversion_of(hub_id: str) -> str | None:
    """The revision of a pull request that brings a repository's weights as safetensors; None where none is known of."""
    if constants.HF_HUB_OFFLINE:
        return None
    api = HfApi()
    try:
        asked = (one for one in api.get_repo_discussions(hub_id) if one.is_pull_request)
        numbers = [one.num for one in asked if "safetensors" in one.title.lower() and one.status != "closed"]
        for number in numbers[:LOOKED_INTO]:
            files = api.model_info(hub_id, revision=f"refs/pr/{number}", timeout=10).siblings or []
            if any(file.rfilename.startswith("model") and ".safetensors" in file.rfilename for file in files):
                return f"refs/pr/{number}"
    except Exception:  # It is a hint: whatever keeps the Hub from answering, there is none.
        return None
    return None
