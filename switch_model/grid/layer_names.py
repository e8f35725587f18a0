"""Readable names of sparse layers.

Try it: layer_title("encoder.3")
"""

from collections.abc import Iterable


def layer_title(name: str, both: bool = False) -> str:
    """ "encoder.3" -> "layer 3", "decoder.3" -> "decoder layer 3", "encoder.1.attention" -> "layer 1 attention".

    Args:
        both: whether layers of both stacks are shown: "encoder.3" -> "encoder layer 3".
    """
    stack, index, part = _parts(name)
    plain = stack == "" or (stack == "encoder" and not both)
    return f"{'' if plain else stack + ' '}layer {index}{part and ' ' + part}"


def layer_titles(names: Iterable[str]) -> dict[str, str]:
    """Name -> `layer_title` of layers shown together: "encoder layer 3" where there are decoder layers too."""
    names = list(names)
    both = len({_parts(name)[0] for name in names}) > 1
    return {name: layer_title(name, both) for name in names}


def layer_label(name: str, both: bool = False) -> str:
    """A short name: "layer 3", "attn 1"; with layers of both stacks "enc 3", "enc attn 1"."""
    stack, index, part = _parts(name)
    own = f"attn {index}" if part else index if both else f"layer {index}"
    return f"{stack[:3]} {own}" if both else own


def _parts(name: str) -> tuple[str, str, str]:
    """(stack, number, "attention" or ""), also of the "layer 3" of a trace."""
    stack, _, rest = name.partition(".") if "." in name else ("", "", name)
    index, _, part = rest.removeprefix("layer ").partition(".")
    return stack, index, part
