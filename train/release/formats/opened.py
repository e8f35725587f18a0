"""A checkpoint as the exporters get it."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from switch_model.models.pretrained import SwitchPreTrainedModel


@dataclass(frozen=True)
class Opened:
    """A checkpoint being exported.

    Attributes:
        name: of its folder, file or repository, for titles.
        files: folder with a copy of its files that is safe to share.
        model, tokenizer: opened from them, on the CPU.
        with_routing: whether exported graphs also give the routing.
    """

    name: str
    files: Path
    model: SwitchPreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    with_routing: bool = False

    def card(self) -> str:
        """The model card; a title alone where the checkpoint has none."""
        path = self.files / "README.md"
        return path.read_text(encoding="utf-8") if path.is_file() else f"# {self.name}\n"
