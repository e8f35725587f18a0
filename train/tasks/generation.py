"""Text generation at evaluations: translations with BLEU and chrF, and samples of text.

BLEU (Papineni et al., 2002) and chrF (Popović, 2015) are sacreBLEU's (1804.08771), with its own tokenizer 13a.
Try it: metrics_of_texts(["the cat sat"], ["the cat sat down"])
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerFast

from switch_model.inference.decoding import MAX_NEW_TOKENS, Decoding
from switch_model.inference.sentinels import restored, with_sentinels
from switch_model.inference.text_generator import TextGenerator
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.tokenizer_io import target_of
from train.tasks.metrics import MEASURES, metrics_of_texts

SHOWN_SAMPLES = 3
# Default generation settings of a causal model.
STORY = Decoding(max_new_tokens=60, do_sample=True, temperature=0.8, top_k=40)


@torch.inference_mode()
def translate(
    model: SwitchPreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    num_beams: int = 1,
    max_new_tokens: int | None = None,
) -> list[str]:
    """The outputs of an encoder-decoder for texts, in their order; "" for a blank one. A span-corruption model gives
    the texts with their gaps filled."""
    if gaps := model.config.restores_gaps:
        texts = [with_sentinels(text, tokenizer) for text in texts]
    ids = tokenizer(list(texts), truncation=True, return_attention_mask=False)["input_ids"]
    # Batches of similar length: a batch is as slow as its longest output.
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    # Blank texts get no output.
    order = [index for index in order if ids[index] and texts[index].strip()]
    answers, writer = [""] * len(ids), target_of(tokenizer)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer.pad({"input_ids": [ids[index] for index in chosen]}, return_tensors="pt")
        written = model.generate(
            input_ids=batch["input_ids"].to(model.device),
            attention_mask=batch["attention_mask"].to(model.device),
            max_new_tokens=max_new_tokens or min(writer.model_max_length, MAX_NEW_TOKENS),
            num_beams=num_beams,
            do_sample=False,
        )
        spoken = writer.batch_decode(written, skip_special_tokens=True)
        for index, ids_T, answer in zip(chosen, written.tolist(), spoken, strict=True):
            answers[index] = (gaps and restored(texts[index], ids_T, writer)) or answer.strip()
    return answers


def continue_texts(
    model: SwitchPreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    decoding: Decoding = STORY,
) -> list[str]:
    """A causal model's continuation of each prompt, as in the app; a blank prompt gives a text from its beginning.

    The global random state does not change; each prompt has its own seed, counted from `decoding.seed`.
    """
    generator = TextGenerator(model, tokenizer)
    return [
        generator.write(prompt, replace(decoding, seed=decoding.seed + index)).text
        for index, prompt in enumerate(prompts)
    ]


# At an evaluation: model -> metrics, and samples of text.
SampleWriter = Callable[[SwitchPreTrainedModel], tuple[dict[str, float], list[dict[str, str]]]]


def translator(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    references: Sequence[str],
    batch_size: int,
    more: str = "none",
) -> SampleWriter:
    """A SampleWriter that translates the validation rows, greedily. `more`: as `metrics_of_texts`."""

    def write(model: SwitchPreTrainedModel) -> tuple[dict[str, float], list[dict[str, str]]]:
        answers = translate(model, tokenizer, texts, batch_size=batch_size)
        metrics = metrics_of_texts(answers, references, more)
        shown = zip(texts[:SHOWN_SAMPLES], answers, references, strict=False)
        samples = [{"text": text, "answer": answer, "reference": reference} for text, answer, reference in shown]
        return {name: value for name, value in metrics.items() if name in MEASURES}, samples

    return write


def storyteller(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> SampleWriter:
    """A SampleWriter that continues the same prompts at every evaluation."""

    def write(model: SwitchPreTrainedModel) -> tuple[dict[str, float], list[dict[str, str]]]:
        answers = continue_texts(model, tokenizer, prompts)
        return {}, [{"text": prompt, "answer": answer} for prompt, answer in zip(prompts, answers, strict=True)]

    return write
