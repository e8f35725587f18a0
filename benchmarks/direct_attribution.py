"""Does what an expert writes matter? Its direct contribution to the token that the model wrote, beside the change of
that token's logit when the expert is switched off.

python -m benchmarks.direct_attribution      minutes: the bundled causal models, on texts that they write themselves

For each token written: every expert that it goes through, in every layer. Spearman's rank correlation within a token
(over all its experts, and over those of each layer where there are several), then the mean over tokens. Beside it: that
of the expert's weight, which needs no output layer, and that of contributions shuffled among the token's experts.
"""

import random
from collections.abc import Sequence
from statistics import mean

import numpy as np
import torch

from switch_model import Interventions, TextGenerator
from switch_model.attribution.direct import Term, direct_attribution
from switch_model.inference.decoding import Decoding

CHECKPOINTS = ("assets/models/tiny_stories_olmoe", "assets/models/tiny_stories")
PROMPTS = ("Once upon a time", "The little dog", "One day, Tom and Lily", "Mia was sad because", "It was raining and")
SEEDS, WRITTEN, EACH = 2, 40, 5


@torch.inference_mode()
def changes(generator: TextGenerator, ids: list[int], token: int, follower: int, terms: Sequence[Term]) -> list[float]:
    """What the follower's logit loses without each expert."""
    rows = [Interventions(), *(Interventions(ablate={(term.layer, term.expert)}) for term in terms)]
    ids_RT = torch.tensor([ids]).expand(len(rows), -1)
    logits_R = generator.model(ids_RT, interventions=rows, use_cache=True).logits[:, token, follower].float()
    return (logits_R[0] - logits_R[1:]).tolist()


def agreement(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where it is not defined."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def ranks(values: Sequence[float]) -> np.ndarray:
    """From 1; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (count.cumsum() - (count - 1) / 2)[place]


def measured(checkpoint: str) -> dict[str, float]:
    generator, draws = TextGenerator.from_checkpoint(checkpoint, "cpu", dtype=_float32(checkpoint)), random.Random(0)
    found: dict[str, list[float]] = {}

    def note(name: str, terms: Sequence[Term], lost: Sequence[float]) -> None:
        direct = [term.values[0] for term in terms]
        shuffled = draws.sample(direct, len(direct))
        rows = {"direct": direct, "weight": [term.weight or 0.0 for term in terms], "shuffled": shuffled}
        for what, values in rows.items():
            if (rank := agreement(values, lost)) is not None:
                found.setdefault(f"{name}: {what}", []).append(rank)

    for prompt in PROMPTS:
        for seed in range(SEEDS):
            answer = generator.write(prompt, Decoding(WRITTEN, do_sample=True, top_k=40, seed=seed))
            ids, first = answer.answer.ids, answer.answer.written - 1
            for token in sorted(draws.sample(range(first, len(ids) - 1), min(EACH, len(ids) - 1 - first))):
                terms = direct_attribution(generator, answer, token).experts
                lost = changes(generator, ids, token, ids[token + 1], terms)
                note("all layers", terms, lost)
                for layer in generator.model.config.sparse_layers:
                    own = [index for index, term in enumerate(terms) if term.layer == layer]
                    note(layer, [terms[index] for index in own], [lost[index] for index in own])
    return {"tokens": len(found["all layers: direct"])} | {name: mean(ranks) for name, ranks in found.items()}


def _float32(checkpoint: str) -> str | None:
    """Models of transformers in single precision; Switch models always are."""
    return "float32" if checkpoint.endswith("olmoe") else None


def main() -> None:
    for checkpoint in CHECKPOINTS:
        print(checkpoint)
        for name, value in measured(checkpoint).items():
            print(f"  {name:32} {value:.0f}" if name == "tokens" else f"  {name:32} {value:+.2f}", flush=True)


if __name__ == "__main__":
    main()
