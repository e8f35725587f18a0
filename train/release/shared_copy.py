"""A copy of a checkpoint that is safe to share: known files only, without paths of this machine.

Try it: shared_copy(Path("runs/my-run/best"), Path("copy"))
"""

import json
import re
import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from transformers import PreTrainedTokenizerFast

from switch_model.checkpoint import load_checkpoint
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.archive import is_known
from train.release.card import model_card, with_own_licence

# An absolute path, or one in the home folder, inside a text.
ABSOLUTE = re.compile(r"(?<![\w/\\:.~-])(?:~[/\\]|[A-Za-z]:[/\\]|/)[^\s'\"`]+")


def shared_copy(folder: Path, target: Path) -> tuple[SwitchPreTrainedModel, PreTrainedTokenizerFast]:
    """Copy a checkpoint's files to a new folder, without local paths.

    Returns model and tokenizer: the checkpoint is opened first, to validate it.
    """
    model, tokenizer = load_checkpoint(folder, "cpu")
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
    return model, tokenizer


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
