"""Repositories of the Hugging Face Hub by name and revision: "owner/name@revision" wherever "owner/name" is accepted.

A revision is a branch, a tag, a commit, or a pull request as refs/pr/N. Only files requested by name are downloaded,
never a pickle.
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
# Maximum number of pull requests that are searched for safetensors.
MAX_PULL_REQUESTS = 5
WITH_SAFETENSORS = "google/switch-base-32"
UNREACHABLE = (
    "the Hugging Face Hub could not be reached. Is this machine online, and HF_HUB_OFFLINE unset? Or download the "
    "repository elsewhere and give its folder."
)


def split_revision(name: str | Path, revision: str | None = None) -> tuple[str, str | None]:
    """A name and its revision, which may be part of the name; None = main.

    Raises CheckpointError for two revisions, and for a revision of a local path.
    """
    name = str(name)
    if Path(name).exists():
        if revision:
            raise CheckpointError(
                f"{name} is a local path and has no revision {revision!r}: only repositories on the Hugging Face Hub "
                "have revisions."
            )
        return name, None
    found = NAME.fullmatch(name)
    if found is None:
        return name, revision
    if revision not in (None, found["revision"]):
        raise CheckpointError(f"{name} already names a revision, but another one is given: {revision}.")
    return found["id"], found["revision"]


def with_revision(name: str, revision: str | None) -> str:
    """ "name@revision", or the name alone without a revision. Raises CheckpointError as `split_revision` does."""
    name, revision = split_revision(name, revision)
    return f"{name}@{revision}" if revision else name


def short_name(name: str | Path) -> str:
    """A checkpoint's name for titles: the last part of its path or hub id, without its revision."""
    return Path(split_revision(name)[0]).name


def download(name: str, files: Sequence[str], what: str = "neither a folder nor a zip") -> Path:
    """Download files of a repository and return their folder. Raises CheckpointError when that fails.

    Args:
        name: hub id with or without a revision.
        files: file names or patterns.
        what: what the name is not, for the error message.
    """
    hub_id, revision = split_revision(name)
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # The hub client raises many types.
        if revision and lacks_revision(error):
            raise CheckpointError(no_revision(hub_id, revision)) from error
        if is_unreachable(error):
            raise CheckpointError(f"There is no checkpoint at {name!r}: it is {what}, and {UNREACHABLE}") from error
        raise CheckpointError(
            f"There is no checkpoint at {name!r}: it is {what}, and the Hugging Face Hub has no such repository."
        ) from error


def lacks_revision(error: BaseException | None) -> bool:
    """Whether the Hub has the requested repository but not the revision."""
    while error is not None:
        if isinstance(error, RevisionNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_unreachable(error: BaseException | None) -> bool:
    """Whether the Hub was not asked, or did not answer: then the repository may exist."""
    found = False
    while error is not None:
        if isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError)):
            return False
        # By name: the hub client has changed its HTTP library more than once, and each has such a base class.
        names = {kind.__name__ for kind in type(error).__mro__}
        found |= isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError))
        found |= "TransportError" in names
        error = error.__cause__ or error.__context__
    return found


def is_missing(error: BaseException | None) -> bool:
    """Whether the Hub answered that there is no such repository, or none that this user may see."""
    while error is not None:
        if isinstance(error, RepositoryNotFoundError):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_within_reach(hub_id: str) -> bool:
    """Whether the Hub answers, tried once: its client retries for most of a minute to download a single file."""
    try:
        HfApi().model_info(hub_id, timeout=10)
    except Exception as error:
        return not is_unreachable(error)
    return True


def no_revision(hub_id: str, revision: str) -> str:
    """The message for a repository that lacks a revision."""
    return (
        f"{hub_id} is on the Hugging Face Hub, but has no revision {revision!r}: name a branch, a tag, a commit, or a "
        "pull request as refs/pr/N."
    )


def without_pickles(name: str) -> str:
    """Advice for a repository without safetensors: a pull request there that adds them, if the Hub knows one."""
    never = "Pickled weights (.bin, .pt) are never opened: they can run code."
    hub_id, _ = split_revision(name)
    if Path(hub_id).exists():
        return never
    if found := conversion_of(hub_id):
        return f"{never} A pull request there adds safetensors: --revision {found}, or {hub_id}@{found} as its name."
    return (
        f"{never} Perhaps a pull request there adds safetensors: --revision refs/pr/N. {WITH_SAFETENSORS}, for one, "
        "has them already."
    )


def conversion_of(hub_id: str) -> str | None:
    """The revision of a pull request that adds a repository's weights as safetensors; None without one."""
    if constants.HF_HUB_OFFLINE:
        return None
    api = HfApi()
    try:
        asked = (one for one in api.get_repo_discussions(hub_id) if one.is_pull_request)
        numbers = [one.num for one in asked if "safetensors" in one.title.lower() and one.status != "closed"]
        for number in numbers[:MAX_PULL_REQUESTS]:
            files = api.model_info(hub_id, revision=f"refs/pr/{number}", timeout=10).siblings or []
            if any(file.rfilename.startswith("model") and ".safetensors" in file.rfilename for file in files):
                return f"refs/pr/{number}"
    except Exception:  # Only a hint: any failure means there is none.
        return None
    return None
