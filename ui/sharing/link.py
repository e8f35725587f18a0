"""A view as a link: the text, the place that is looked at and the changes, packed into the address."""

import base64
import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from switch_model import Interventions
from switch_model.inference.decoding import Decoding
from switch_model.inference.pipeline import MAX_CHARACTERS
from ui.server.limits import MAX_BEAMS, MAX_LENGTH, MAX_SECONDS
from ui.views.changes import changes_from_json, changes_to_json
from ui.views.view import PLAIN, View

# Of links and records.
VERSION = 1

# Of a link's content, packed and unpacked: a text of some pages fits in.
MAX_LINK, MAX_UNPACKED = 200_000, 1_000_000
# Before a link's content, behind its address.
LINK = "#s="


@dataclass(frozen=True)
class Shared:
    """What a link holds: enough to make the view again with the model."""

    model: str
    text: str
    token: int
    layer: int
    changes: Interventions
    true_label: str | None
    decoding: Decoding


def link_of(view: View) -> str:
    """What stands behind # in a link: packed JSON, in letters that need no escaping."""
    content = {
        "v": VERSION,
        "model": view.model,
        "text": view.text,
        "token": view.place[0],
        "layer": view.place[1],
        "true_label": view.true_label,
        **changes_to_json(view.changes),
        **({} if view.classifies else {"decoding": asdict(view.decoding)}),
    }
    packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_link(link: str) -> Shared:
    """The inverse of `link_of`. Raises ValueError for what is no such link."""
    if len(link) > MAX_LINK:
        raise ValueError("This link is too long to be one of this page.")
    try:
        packed = base64.urlsafe_b64decode(link + "=" * (-len(link) % 4))
        unpacking = zlib.decompressobj()
        content = json.loads(unpacking.decompress(packed, MAX_UNPACKED))
        check_version(content)
        label = content.get("true_label")
        return Shared(
            str(content["model"]),
            str(content["text"])[:MAX_CHARACTERS],
            int(content["token"]),
            int(content["layer"]),
            changes_from_json(content),
            None if label is None else str(label)[:200],
            decoding_from_json(content.get("decoding")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error, RecursionError, OverflowError) as error:
        raise ValueError("This link is damaged: a part of it is missing or changed. Copy it again.") from error


def check_version(content: dict[str, Any]) -> None:
    """Raises ValueError for a link or a record of another version."""
    if content.get("v") != VERSION:
        raise ValueError("it is of another version")


def decoding_from_json(values: Any) -> Decoding:
    """How a text was written, within what a page allows. Raises ValueError, TypeError for what is no such thing."""
    if values is None:
        return PLAIN
    decoding = Decoding(**values | {"max_seconds": MAX_SECONDS})
    if decoding.max_new_tokens > MAX_LENGTH or decoding.num_beams > MAX_BEAMS:
        raise ValueError("the text is too long, or follows too many others")
    return decoding
