"""A view as a link: the text, the place that is looked at and the changes, packed into the address."""

import base64
import json
import math
import zlib
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from switch_model import Interventions
from switch_model.inference.decoding import Decoding
from switch_model.inference.pipeline import MAX_CHARACTERS
from ui.server.limits import MAX_BEAMS, MAX_LENGTH, MAX_SECONDS
from ui.views.view import NO_CHANGES, PLAIN, View

# Of links and records.
VERSION = 1

# Of a link's content, packed and unpacked: a text of some pages fits in.
MAX_LINK, MAX_UNPACKED = 200_000, 1_000_000
# Before a link's content, behind its address.
LINK = "#s="
# Instead of packed content: the address of a view in plain words, which the page itself writes.
PLAIN_LINK = "?"
# Of a text in the address, and of a packed view: longer ones are left out.
MAX_TEXT, MAX_PACKED = 500, 6000


@dataclass(frozen=True)
class Shared:
    """What a link holds: enough to make the view again with the model ("" = the one that the page opens with).

    `text` is None in the address of a model alone: somebody's, or of a text that was too long for it.
    """

    model: str
    text: str | None
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


def address_of(view: View) -> dict[str, str] | None:
    """What the page's address keeps of a view, but for the place that is looked at; None where it could not be opened
    again. A visitor's own model is gone after a reload: its text is kept, for the model that the page opens with."""
    if not view.model:
        return None
    own, known = "#" in view.model, {"label": view.true_label} if view.true_label else {}
    plain = {} if own else {"model": view.model}
    if len(view.text) <= MAX_TEXT and (own or not _is_changed(view)):
        return plain | known | {"text": view.text}
    packed = "" if own else link_of(view)
    return plain if not packed or len(packed) > MAX_PACKED else {"s": packed}


def _is_changed(view: View) -> bool:
    return view.changed or not (view.classifies or getattr(view, "decoding", PLAIN) == PLAIN)


def _read_address(link: str) -> Shared:
    """A view's address: what `address_of` gives, and the place."""
    fields = dict(parse_qsl(link, keep_blank_values=True))
    place = {name: int(fields[name]) for name in ("token", "layer") if name in fields}
    if "s" in fields:
        return replace(read_link(fields["s"]), **place)
    if "text" not in fields and fields["model"]:
        return Shared(fields["model"], None, 0, 0, NO_CHANGES, None, PLAIN)
    text, label = fields["text"][:MAX_CHARACTERS], fields.get("label")
    return replace(Shared(fields.get("model", ""), text, 0, 0, NO_CHANGES, label and label[:200], PLAIN), **place)


def plain_link(model: str, text: str, label: str | None = None, token: int = 0, layer: int = 0) -> str:
    """A link in plain words, which `read_link` reads behind LINK."""
    fields = {"model": model, "text": text, "token": token, "layer": layer} | ({"label": label} if label else {})
    return f"{LINK}{PLAIN_LINK}{urlencode(fields)}"


def read_link(link: str) -> Shared:
    """The inverse of `link_of`. Raises ValueError for what is no such link."""
    if len(link) > MAX_LINK:
        raise ValueError("This link is too long to be a link of this page.")
    try:
        if link.startswith(PLAIN_LINK):
            return _read_address(link.removeprefix(PLAIN_LINK))
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
    """How a text was written, within what a page allows. Raises ValueError or TypeError for anything else."""
    if values is None:
        return PLAIN
    decoding = Decoding(**values | {"max_seconds": MAX_SECONDS})
    if decoding.max_new_tokens > MAX_LENGTH or decoding.num_beams > MAX_BEAMS:
        raise ValueError("the text is too long, or follows too many others")
    return decoding


def changes_to_json(changes: Interventions) -> dict[str, Any]:
    """Changes as plain data."""
    factor = changes.capacity_factor
    return {
        "ablate": sorted(map(list, changes.ablate)),
        "force": [[layer, token, expert] for (layer, token), expert in sorted(changes.force.items())],
        "capacity": "none" if factor is not None and math.isinf(factor) else factor,
        "group": changes.capacity_group,
        # Models with one expert for each token have no such key, as before there were others.
        **({"top_k": changes.numbers} if changes.numbers else {}),
    }


def changes_from_json(content: dict[str, Any]) -> Interventions:
    """The inverse of `changes_to_json`. Raises ValueError or TypeError for anything else."""
    factor, numbers = content.get("capacity"), content.get("top_k")
    if numbers is not None and not isinstance(numbers, dict):
        raise ValueError("top_k is no table of layers")
    return Interventions(
        ablate={(layer, expert) for layer, expert in content.get("ablate", [])},
        force={(layer, token): expert for layer, token, expert in content.get("force", [])},
        capacity_factor=math.inf if factor == "none" else factor,
        capacity_group=content.get("group"),
        top_k=numbers[""] if numbers and set(numbers) == {""} else numbers or None,
    )
