"""The router of a configuration."""

from switch_model.config import SwitchConfig
from switch_model.layers.router import Top1Router
from switch_model.layers.routers.choosing import ChoiceRouter
from switch_model.layers.routers.expert_choice import ExpertChoiceRouter
from switch_model.layers.routers.token_choice import SigmoidBiasRouter, TopKRouter

SEVERAL: dict[str, type[ChoiceRouter]] = {
    "topk": TopKRouter,
    "sigmoid_bias": SigmoidBiasRouter,
    "expert_choice": ExpertChoiceRouter,
}


def router_of(config: SwitchConfig, name: str = "", causal: bool = False) -> Top1Router | ChoiceRouter:
    """A router of the kind that `config.router` names; `name` and `causal` as in Top1Router."""
    kind = SEVERAL.get(config.router)
    return Top1Router(config, name, causal) if kind is None else kind(config, name, causal)
