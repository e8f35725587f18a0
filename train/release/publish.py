"""Upload a checkpoint with its model card to the Hugging Face Hub: like `push_to_hub`, but only files safe to share.

Weights, JSON and the card are uploaded; optimizer files, logs and local paths are not.
Try it: hf auth login; python -m train publish --run runs/my-run --repo_id me/my-model
"""

import json
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, validate_repo_id

from switch_model.checkpoint import load_checkpoint
from switch_model.storage.archive import is_known
from train.release.card import model_card, with_own_licence

# In seconds: the client itself would wait for minutes, and retry.
FIRST_ANSWER = 10
# An absolute path, or one in the home folder, inside a text.
ABSOLUTE = re.compile(r"(?<![\w/\\:.~-])(?:~[/\\]|[A-Za-z]:[/\\]|/)[^\s'\"`]+")


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
        shared = _shared_copy(folder, Path(scratch) / "model")
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


def _shared_copy(folder: Path, target: Path) -> Path:
    """A copy of a checkpoint's files without local paths. Opens the checkpoint first, to validate it."""
    model, _ = load_checkpoint(folder, "cpu")
    target.mkdir()
    for path in folder.iterdir():
        if is_known(path.name) and path.is_file():
            shutil.copyfile(path, target / path.name)
    found: dict[str, str] = {str(folder.resolve()): folder.name, str(Path.cwd()): ".", str(Path.home()): "~"}
    training: dict[str, Any] = {}
    if (path := target / "training.json").is_file():
        training = json.loads(path.read_text(encoding="utf-8"))
        if (without := _without_paths(training, found)) != training:
            training = without
            path.write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
    for path in (target / name for name in ("config.json", "tokenizer_config.json", "target_tokenizer_config.json")):
        # transformers records the local path here.
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if {"_name_or_path", "name_or_path"} & set(values):
            values = {key: value for key, value in values.items() if key not in ("_name_or_path", "name_or_path")}
            path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    card = target / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        for path, name in sorted(found.items(), key=lambda item: -len(item[0])):
            if len(path) > 1:
                text = text.replace(path, name)
        card.write_text(with_own_licence(text), encoding="utf-8")
    elif training:
        card.write_text(model_card(model.config, training, model.parameter_counts()), encoding="utf-8")
    return target


def _without_paths(training: dict[str, Any], found: dict[str, str]) -> dict[str, Any]:
    """training.json with every path shortened to its last part; `found` collects path -> replacement."""

    def shortened(value: Any) -> Any:
        return ABSOLUTE.sub(last_part, value) if isinstance(value, str) else value

    def last_part(matched: re.Match) -> str:
        path = matched.group()
        kind = PureWindowsPath if "\\" in path or path[1:2] == ":" else PurePosixPath
        return found.setdefault(path, kind(path).name)

    # Only fields in which this package writes paths: elsewhere a slash may be part of a class name.
    training = dict(training)
    for key in ("command", "evaluation_command"):
        if key in training:
            training[key] = shortened(training[key])
    for key in ("arguments", "evaluation"):
        if isinstance(training.get(key), dict):
            training[key] = {name: shortened(value) for name, value in training[key].items()}
    return training


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
