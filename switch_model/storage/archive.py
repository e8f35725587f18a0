"""A zipped checkpoint folder -> its known files. Every member is checked before anything is unpacked.

Try it: unzip(Path("my_model.zip"), Path("an/empty/folder"))
"""

import shutil
import stat
import zipfile
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from switch_model.storage.errors import CheckpointError
from switch_model.storage.json_file import MAX_JSON_BYTES, check_size

WEIGHTS = "model.safetensors"
REQUIRED_FILES = ("config.json", WEIGHTS, "tokenizer.json")
# Instead of model.safetensors: the index of its shards, and the shards, as save_pretrained writes them.
INDEX = "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"
# What a smaller model lacks of the one that `prune` made it from.
PRUNING = "pruning.json"
OPTIONAL_FILES = (
    "tokenizer_config.json",
    "target_tokenizer.json",
    "target_tokenizer_config.json",
    "README.md",
    "training.json",
    PRUNING,
)

# Limits for untrusted files: far above what any checkpoint needs.
MAX_ZIP_BYTES = 8_000_000_000
MAX_MEMBERS = 1_000
# Weights hardly compress; JSON to a tenth. Beyond this ratio a member is a zip bomb.
MAX_RATIO, RATIO_COUNTS_FROM = 200, 10_000_000
# Of one file. Weights are bounded by the total size and by their header.
MAX_TOKENIZER_BYTES, MAX_CARD_BYTES = 20_000_000, 1_000_000
_MAX_BYTES = {
    "config.json": MAX_JSON_BYTES,
    "tokenizer.json": MAX_TOKENIZER_BYTES,
    "tokenizer_config.json": MAX_JSON_BYTES,
    "target_tokenizer.json": MAX_TOKENIZER_BYTES,
    "target_tokenizer_config.json": MAX_JSON_BYTES,
    "README.md": MAX_CARD_BYTES,
    "training.json": MAX_JSON_BYTES,
    PRUNING: MAX_JSON_BYTES,
    INDEX: MAX_JSON_BYTES,
}


def is_known(name: str) -> bool:
    """Whether a checkpoint may have a file of that name."""
    return name in (*REQUIRED_FILES, *OPTIONAL_FILES, INDEX) or fnmatchcase(name, SHARDS)


def missing_files(present: Collection[str]) -> list[str]:
    """The required files that are missing; an index of shards replaces model.safetensors."""
    return [name for name in REQUIRED_FILES if name not in present and not (name == WEIGHTS and INDEX in present)]


def unzip(archive: Path, scratch: Path, most: int = MAX_ZIP_BYTES) -> Path:
    """Extract the known files of a zipped checkpoint folder into `scratch`, which is returned.

    Args:
        most: limit for all unpacked files together, in bytes.

    Raises:
        CheckpointError: when it is not a valid checkpoint zip.
    """
    try:
        with zipfile.ZipFile(archive) as contents:
            for name, member in _members(contents, most).items():
                with contents.open(member) as packed, (scratch / name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many types.
        raise CheckpointError(
            f"{archive.name} is not a valid checkpoint zip. Give a checkpoint folder, a .zip of one, or a hub id."
        ) from error
    return scratch


def _members(contents: zipfile.ZipFile, most: int) -> dict[str, zipfile.ZipInfo]:
    """The known files by name. Raises CheckpointError for the first unsafe member."""
    members = contents.infolist()
    if len(members) > MAX_MEMBERS:
        raise CheckpointError(f"The zip holds {len(members):,} files: at most {MAX_MEMBERS:,}.")
    files: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        shown = member.filename[:80]
        if not path.parts:  # The folder itself.
            continue
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise CheckpointError(f"The zip holds a path that leads out of its folder: {shown!r}.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise CheckpointError(f"The zip holds a link: {shown!r}. Zip the files themselves.")
        if member.file_size > max(RATIO_COUNTS_FROM, MAX_RATIO * member.compress_size):
            raise CheckpointError(
                f"{shown!r} unpacks to more than {MAX_RATIO} times its size: it is not a checkpoint file."
            )
        if member.is_dir() or not is_known(path.name):
            continue
        if path.name in files:
            raise CheckpointError(f"The zip holds {path.name} twice: zip one checkpoint folder.")
        files[path.name] = member
    check_sizes({name: member.file_size for name, member in files.items()}, most)
    return files


def check_sizes(sizes: Mapping[str, int], most: int) -> None:
    """Raise CheckpointError when a file of a checkpoint is larger than its kind may be, or all are larger than `most`.

    Args:
        sizes: file name -> bytes.
    """
    for name, size in sizes.items():
        check_size(name, size, _MAX_BYTES.get(name, most))
    if sum(sizes.values()) > most:
        raise CheckpointError(f"The checkpoint is larger than {most / 1e9:g} GB.")
