"""Which families of transformers' mixture-of-experts models can be read, and why the others can't.

Try it: reason_against("dbrx")
"""

import re

import transformers
from torch import nn

# The first version in which the routers of most families return (logits, weights, experts), in this order.
LEAST_TRANSFORMERS = (5, 24)

# Routers by class name. Each of the first kind returns (logits, weights, experts) of all tokens, flattened.
CONTRACT = re.compile(r"(Top[Kk]Router|TokenChoiceRouter|TextRouter|MoEV1Gate|HashRouter)$")
ODD = ("NllbMoeTop2Router", "Llama4Router", "SwitchTransformersTop1Router")

# Families whose routers return (logits, weights, experts): Mixtral's kind.
EXAMPLES = "mixtral, olmoe, qwen3_moe, gpt_oss, granitemoe, phimoe, deepseek_v3, glm4_moe, lfm2_moe and gemma4"
SUPPORTED = (
    "Mixture-of-experts models of transformers can be opened whose router returns logits, weights and experts, such "
    f"as {EXAMPLES}, and also nllb_moe, llama4 and switch_transformers (docs/adapters.md has the list)."
)

# Their routers choose one expert after the other, always as many.
FIXED_CHOICES = ("phimoe", "inkling")

REFUSED = {
    "jetmoe": "it routes attention too, and its router returns sorted assignments without their tokens",
    "dbrx": "its router returns logits alone",
    "doge": "it has no router: experts are looked up by product keys",
    "zaya": "one of its choices is to skip the layer, which is no expert",
    "diffusion_gemma": "it writes a block of tokens in several passes, each with other choices",
    "inkling2_loop": "it runs the same layers several times, with other choices each time",
    "vitpose_backbone": "its experts are chosen by data set, not by token",
}


def too_old() -> str | None:
    """A sentence when the installed transformers is older than the adapters need; None otherwise."""
    found = tuple(int(part) for part in re.findall(r"\d+", transformers.__version__)[:2])
    if found >= LEAST_TRANSFORMERS:
        return None
    least = ".".join(map(str, LEAST_TRANSFORMERS))
    return (
        f"Mixture-of-experts models of transformers need transformers {least} or newer, whose routers all return the "
        f"same in the same order; this is {transformers.__version__}. Upgrade it with: pip install -U transformers"
    )


def reason_against(model_type: str) -> str | None:
    """A sentence for a family that is known not to work; None otherwise."""
    why = REFUSED.get(model_type)
    return why and f"The family {model_type} can't be opened: {why}. {SUPPORTED}"


def is_router(module: nn.Module) -> bool:
    """Whether a module is a router that can be read, by its class name."""
    name = type(module).__name__
    return bool(CONTRACT.search(name)) or name in ODD
