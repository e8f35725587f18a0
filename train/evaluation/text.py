"""Metrics of language models on a split: BLEU and chrF, perplexity, bits per character, accuracy of tokens.

Try it: python -m train evaluate --checkpoint runs/… --dataset en_hi --split test
"""

import math
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from switch_model.analysis.statistics import RoutingTotals
from switch_model.inference.pipeline import AnyModel
from switch_model.inference.text_generator import ENCODER_DECODERS, WRITERS
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.pretrained import IGNORED_LABEL
from switch_model.storage.errors import class_name
from switch_model.storage.tokenizer_io import target_of
from switch_model.storage.whole_files import write_atomically
from train.data.errors import DataError
from train.data.loading import Split, read_split
from train.data.packing import Blocks, pack, prints_of, smallest_type, stream_texts
from train.data.pairs import read_pairs
from train.data.source import DataSource
from train.data.stored.digests import column
from train.data.tokenizers import tokenize_pairs
from train.evaluation.measured_rows import HIDDEN, hidden_rows, tokenized_rows
from train.evaluation.reliance import drawn, measured
from train.evaluation.settings import EvaluationSettings
from train.tasks.collators import MaskingCollator
from train.tasks.generation import translate
from train.tasks.metrics import metrics_of_texts


def measure_texts(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerFast,
    source: DataSource,
    settings: EvaluationSettings,
    held_out: Split | None = None,
) -> tuple[Split | np.ndarray, dict[str, Any]]:
    """The rows that a model without classes is measured on, of which the first `settings.num_samples` count, or the
    (N,) digests of those that count; and its metrics. `held_out`: rows to evaluate instead of the split's.

    Raises DataError when the data can't be read or are empty; ValueError for a model without a head.
    """
    if isinstance(model, ENCODER_DECODERS):
        return _translation(model, tokenizer, source, settings, held_out)
    if isinstance(model, WRITERS):
        return _next_tokens(model, tokenizer, source, settings, held_out)
    if isinstance(model, SwitchForMaskedLM):
        return _hidden_tokens(model, tokenizer, source, settings, held_out)
    raise ValueError(
        f"{class_name(model)} gives neither classes nor text: there is nothing to measure it by. Give a model with a "
        "head for one of the two."
    )


def _translation(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerFast,
    source: DataSource,
    settings: EvaluationSettings,
    held_out: Split | None,
) -> tuple[Split, dict[str, Any]]:
    split = held_out or read_pairs(source)
    rows = split.rows.select(settings.rows_of(len(split.rows)))
    texts, references = list(rows["text"]), list(rows["target"])
    answers = translate(model, tokenizer, texts, batch_size=settings.batch_size, num_beams=settings.num_beams)
    if settings.save_text:
        write_atomically(settings.save_text, "".join(f"{answer}\n" for answer in answers))
    metrics = metrics_of_texts(answers, references, settings.metrics)
    metrics |= {"num_beams": settings.num_beams, "rows": len(rows)}
    metrics |= {"routing": _routing_of_pairs(model, tokenizer, texts, answers, settings.batch_size)}
    metrics |= measured(model, tokenize_pairs(rows, tokenizer, cut=True), settings.reliance, settings.progress)
    return split, metrics


@torch.inference_mode()
def _routing_of_pairs(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    answers: list[str],
    batch_size: int,
) -> list[dict[str, Any]]:
    """Routing metrics per layer, over source and generated texts."""
    totals = RoutingTotals()
    for start in range(0, len(texts), batch_size):
        stop = start + batch_size
        batch = tokenizer(texts[start:stop], truncation=True, padding=True, return_tensors="pt")
        labels = target_of(tokenizer)(answers[start:stop], truncation=True, padding=True, return_tensors="pt")
        asked = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, IGNORED_LABEL)
        decoder_ids, decoder_mask = model.shift_right(asked)
        output = model(
            batch["input_ids"].to(model.device),
            batch["attention_mask"].to(model.device),
            decoder_input_ids=decoder_ids.to(model.device),
            decoder_attention_mask=decoder_mask.to(model.device),
            output_routing=True,
        )
        totals.add(output.routing)
    return totals.summary()


@torch.inference_mode()
def _next_tokens(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerFast,
    source: DataSource,
    settings: EvaluationSettings,
    held_out: Split | None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Texts as one stream on disk, each followed by an end token, cut into the model's block size; blocks are
    independent."""
    found = islice(stream_texts(source) if held_out is None else column(held_out.rows, "text"), settings.num_samples)
    with TemporaryDirectory(prefix="evaluate-", ignore_cleanup_errors=True) as folder:
        path, dtype = Path(folder) / "texts.bin", smallest_type(tokenizer)
        counts = pack(found, tokenizer, path, dtype)
        blocks = Blocks(path, dtype, model.config.block_size, whole=False)
        if not len(blocks):
            raise DataError(f"{source.dataset} ({source.split}) has no text.")
        return np.fromfile(prints_of(path), "<u8"), _of_blocks(model, blocks, counts, settings)


def _of_blocks(model: AnyModel, blocks: Blocks, counts: dict[str, int], settings: EvaluationSettings) -> dict[str, Any]:
    """`_next_tokens` of a stream with these numbers of texts, tokens and characters."""
    nats, right, asked, totals = 0.0, 0, 0, RoutingTotals()
    for start in range(0, len(blocks), settings.batch_size):
        places = range(start, min(start + settings.batch_size, len(blocks)))
        own = [torch.as_tensor(blocks[place]["input_ids"]) for place in places]
        lengths = torch.tensor([len(part) for part in own])
        batch_BT = torch.nn.utils.rnn.pad_sequence(own, batch_first=True, padding_value=model.config.pad_token_id)
        mask_BT = torch.arange(batch_BT.shape[1]) < lengths.unsqueeze(1)
        batch_BT, mask_BT = batch_BT.to(model.device), mask_BT.to(model.device)
        output = model(batch_BT, mask_BT, output_routing=True)
        labels_BT = batch_BT.masked_fill(~mask_BT, IGNORED_LABEL)[:, 1:]
        logits_BTV = output.logits[:, :-1].float()
        nats += float(
            torch.nn.functional.cross_entropy(
                logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
            )
        )
        right += int((logits_BTV.argmax(-1) == labels_BT).sum())
        asked += int((labels_BT != IGNORED_LABEL).sum())
        totals.add(output.routing)
    return {
        "perplexity": math.exp(nats / asked),
        # Nats per token, converted to bits, divided by the mean number of characters per token.
        "bits_per_character": nats / asked / math.log(2) * counts["tokens"] / counts["characters"],
        "accuracy": right / asked,
        "rows": counts["texts"],
        "tokens": counts["tokens"],
        "characters": counts["characters"],
        "routing": totals.summary(),
        **measured(model, blocks, settings.reliance, settings.progress),
    }


@torch.inference_mode()
def _hidden_tokens(
    model: SwitchForMaskedLM,
    tokenizer: PreTrainedTokenizerFast,
    source: DataSource,
    settings: EvaluationSettings,
    held_out: Split | None,
) -> tuple[Split, dict[str, Any]]:
    """Masked-token metrics; the same tokens are masked in every call."""
    split = held_out or read_split(source, labelled=False)
    features = tokenized_rows(split, tokenizer, [], settings.num_samples)
    loader = DataLoader(features, batch_size=settings.batch_size, collate_fn=MaskingCollator(tokenizer, HIDDEN, seed=0))
    nats, right, asked, totals = 0.0, 0, 0, RoutingTotals()
    for batch in loader:
        labels = batch.pop("labels")
        output = model(**{key: tensor.to(model.device) for key, tensor in batch.items()}, output_routing=True)
        chosen = labels != IGNORED_LABEL
        logits_MV, wanted_M = output.logits.float().cpu()[chosen], labels[chosen]
        nats += float(torch.nn.functional.cross_entropy(logits_MV, wanted_M, reduction="sum"))
        right, asked = right + int((logits_MV.argmax(-1) == wanted_M).sum()), asked + len(wanted_M)
        totals.add(output.routing)
    hidden = hidden_rows(tokenizer, drawn(features, settings.reliance))
    return split, {
        "accuracy": right / max(asked, 1),
        "perplexity": math.exp(nats / max(asked, 1)),
        "rows": len(features),
        "hidden_tokens": asked,
        "hidden_share": HIDDEN,
        "routing": totals.summary(),
        **measured(model, hidden, settings.reliance, settings.progress),
    }
