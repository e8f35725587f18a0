"""Upload a checkpoint with its model card to the Hugging Face Hub: like `push_to_hub`, but only files safe to share.

Weights, JSON and the card are uploaded; optimizer files, logs and local paths are not.
Try it: hf auth login; python -m train publish --run runs/my-run --repo_id me/my-model
"""

import tempfile
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, validate_repo_id

from train.release.shared_copy import shared_copy

# In seconds: the client itself would wait for minutes, and retry.
FIRST_ANSWER = 10


class PublishError(Exception):
    """Says why nothing was published, and what to do."""


def publish(run_or_checkpoint: str | Path, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload a run's best checkpoint, or a checkpoint folder; returns its address.

    Args:
        repo_id: "owner/name"; created if it does not exist.
        private: visibility; an existing repository must have the same.
        token: with write permission; None = that of `hf auth login` or HF_TOKEN.

    Raises:
        CheckpointError: when there is no valid checkpoint.
        PublishError: when the Hub can't be reached or refuses.
    """
    folder = Path(run_or_checkpoint)
    if not folder.is_dir():
        raise PublishError(f"{folder} is not a folder. Give a run's folder, or that of a checkpoint.")
    if not (folder / "config.json").is_file() and (folder / "arguments.json").is_file():
        if not (folder / "best").is_dir():
            raise PublishError(f"{folder} has no checkpoint yet: it was stopped before its first evaluation.")
        folder = folder / "best"
    _check_name(repo_id)
    token = token or get_token()
    if token is None:
        raise PublishError("There is no token for the Hub: log in with `hf auth login`, or set HF_TOKEN.")
    with tempfile.TemporaryDirectory() as scratch:
        shared = Path(scratch) / "model"
        shared_copy(folder, shared)
        try:
            return _upload(shared, repo_id, private, token)
        except (HTTPError, OfflineModeIsEnabled, ConnectionError, RuntimeError) as error:
            raise _explained(error, repo_id) from error


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
        if repo_id.count("/") != 1:
            raise HFValidationError
    except HFValidationError:
        raise PublishError(
            f"{repo_id!r} is not a valid name on the Hub: write owner/name, of letters, digits, - _ and ."
        ) from None


def _upload(folder: Path, repo_id: str, private: bool, token: str) -> str:
    _meet_the_hub(token)
    api = HfApi(token=token)
    try:
        is_private = api.model_info(repo_id).private
    except RepositoryNotFoundError:
        is_private = None
    if is_private is not None and is_private != private:
        there, ask = ("private", "leave out --public") if is_private else ("public", "add --public")
        raise PublishError(f"{repo_id} already exists and is {there}: {ask}, or choose another name.")
    url = api.create_repo(repo_id, private=private, exist_ok=True)
    api.upload_folder(folder_path=folder, repo_id=repo_id, commit_message="Upload checkpoint")
    return str(url)


def _meet_the_hub(token: str) -> None:
    """Check the token with one short request, so that an unreachable Hub fails fast."""
    address = f"{constants.ENDPOINT}/api/whoami-v2"
    answer = get_session().get(address, headers=build_hf_headers(token=token), timeout=FIRST_ANSWER)
    if answer.status_code in (401, 403):
        raise PublishError("The Hub rejects this token: log in again with `hf auth login`, or set another HF_TOKEN.")
    if answer.status_code >= 400:
        raise PublishError(f"{constants.ENDPOINT} answers with error {answer.status_code}: try again later.")


def _explained(error: BaseException, repo_id: str) -> PublishError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OfflineModeIsEnabled):
            return PublishError("HF_HUB_OFFLINE is set: unset it to publish.")
        if isinstance(cause, HfHubHTTPError):
            if cause.response.status_code in (401, 403, 404):
                return PublishError(
                    f"You have no permission to write to {repo_id}: the owner must be you or your organization, and "
                    "the token needs write permission (https://huggingface.co/settings/tokens)."
                )
            said = (cause.server_message or str(cause)).strip().splitlines()
            return PublishError(f"The Hub refused {repo_id}: {said[0] if said else cause.response.status_code}")
        if isinstance(cause, (HTTPError, ConnectionError)):
            return PublishError(
                f"{constants.ENDPOINT} can't be reached: {cause or type(cause).__name__}. Is there a network?"
            )
        cause = cause.__cause__ or cause.__context__
    return PublishError(
        f"The upload failed: {str(error).strip().splitlines()[0] if str(error) else type(error).__name__}"
    )
