"""Stack: the blocks of a Switch Transformer, from embeddings to hidden states, with the record of every sparse layer.

Legend: B batch, T tokens, S keys: the tokens of the cache and these, S' tokens of the encoder, D d_model, H heads.
T5's pre-norm layout (1910.10683), with sparse MLPs. Serves as encoder, as decoder, and as decoder with
cross-attention.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.layers.attention import Attention, CacheUpdate, RelativePositionBias, causal_bias, padding_bias
from switch_model.layers.convolution import TokenConvolution
from switch_model.layers.dense_mlp import DenseMLP
from switch_model.layers.dropout import Dropout
from switch_model.layers.positions import Rotation, absolute_positions, rotation
from switch_model.layers.sparse_attention import AttentionModules, ProjectionExperts
from switch_model.routing import Routing
from switch_model.sparse_mlp import SparseMLP


@dataclass(frozen=True)
class Inputs:
    """The inputs of every block besides the hidden states.

    Attributes:
        mask: (B, T) bool, True = a real token.
        bias: (B, H or 1, T, S) added to self-attention scores: relative positions, padding mask, causal mask.
        interventions: changes to the routing.
        encoder_hidden, encoder_bias: (B, S', D) states for cross-attention, and (B, 1, 1, S') their padding mask.
        cache: keys and values of earlier tokens.
        past_tokens: (B,) number of tokens of each sequence in the cache; None without a cache.
        weights_wanted: whether to return attention weights.
        turned: rotation of queries and keys by their positions; None = positions are encoded otherwise.
    """

    mask: Tensor
    bias: Tensor
    interventions: AnyInterventions
    encoder_hidden: Tensor | None = None
    encoder_bias: Tensor | None = None
    cache: Cache | None = None
    past_tokens: Tensor | None = None
    weights_wanted: bool = False
    turned: Rotation | None = None


@dataclass(frozen=True)
class Extras:
    """Which optional outputs of a stack are requested."""

    hidden_states: bool = False
    attentions: bool = False


NO_EXTRAS = Extras()


@dataclass(frozen=True)
class StackOutput:
    """The output of a stack.

    Attributes:
        hidden: (B, T, D) after the final norm.
        records: one per sparse layer, in depth order.
        expert_outputs: (B, T, D) each: every sparse MLP's expert output times the gate; zeros at padding and dropped
            tokens.
        hidden_states: (B, T, D) each: the first block's input, the output of every block but the last, and `hidden`.
        attentions, cross_attentions: (B, H, T, S or S') each: attention weights of every block.
    """

    hidden: Tensor
    records: tuple[Routing, ...]
    expert_outputs: tuple[Tensor, ...] = ()
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


class Block(GradientCheckpointingLayer):
    """Self-attention, cross-attention (in an encoder-decoder), and a dense or sparse MLP, each with pre-norm and added
    to the residual stream."""

    def __init__(self, config: SwitchConfig, stack: str, layer: int, causal: bool, cross: bool):
        super().__init__()
        self.layer = layer
        name = f"{stack}.{layer}"
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.attention: Attention | ProjectionExperts | AttentionModules
        if config.attention_is_sparse(layer, stack):
            kind = ProjectionExperts if config.attention_experts == "projections" else AttentionModules
            self.attention = kind(config, f"{name}.attention", causal)
        else:
            self.attention = Attention(config)
        if cross:
            self.cross_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
            self.cross_attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = SparseMLP(config, name, causal) if config.is_sparse(layer, stack) else DenseMLP(config)
        self.dropout = Dropout(config.dropout_rate)
        self.expert_residual = config.expert_residual

    def forward(
        self, hidden: Tensor, inputs: Inputs
    ) -> tuple[Tensor, list[Routing], tuple[Tensor | None, Tensor | None], Tensor | None]:
        """Hidden states (B, T, D), the records, the weights of self- and cross-attention or None, and the sparse MLP's
        expert output (B, T, D), None from a dense MLP."""
        records, wanted, crossed = [], inputs.weights_wanted, None

        # 1. Self-attention.
        normed, update_cache = self.attention_norm(hidden), self._cache_update(inputs.cache)
        if isinstance(self.attention, Attention):
            update, weights = self.attention(
                normed, inputs.bias, update_cache=update_cache, weights_wanted=wanted, turned=inputs.turned
            )
        else:
            update, routing, weights = self.attention(
                normed, inputs.mask, inputs.bias, inputs.interventions, update_cache, inputs.past_tokens, wanted
            )
            records.append(routing)
        hidden = hidden + self.dropout(update)

        # 2. Cross-attention.
        if inputs.encoder_hidden is not None and inputs.encoder_bias is not None:
            keys_values = self._encoder_keys_values(inputs.encoder_hidden, inputs.cache)
            update, crossed = self.cross_attention(
                self.cross_norm(hidden), inputs.encoder_bias, keys_values, weights_wanted=wanted
            )
            hidden = hidden + self.dropout(update)

        # 3. MLP.
        normed = self.mlp_norm(hidden)
        if not isinstance(self.mlp, SparseMLP):
            return hidden + self.dropout(self.mlp(normed)), records, (weights, crossed), None
        update, routing = self.mlp(normed, inputs.mask, inputs.interventions, inputs.past_tokens)
        records.append(routing)
        if self.expert_residual != 1.0:
            hidden = self.expert_residual * hidden
        return hidden + self.dropout(update), records, (weights, crossed), update

    def _cache_update(self, cache: Cache | None) -> CacheUpdate | None:
        if cache is None:
            return None
        own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        return lambda keys, values: own.update(keys, values, self.layer)

    def _encoder_keys_values(self, encoder_hidden: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """Cross-attention keys and values: computed once, then taken from the cache."""
        if not isinstance(cache, EncoderDecoderCache):
            return self.cross_attention.keys_and_values(encoder_hidden)
        if cache.is_updated.get(self.layer):
            layer: Any = cache.cross_attention_cache.layers[self.layer]
            return layer.keys, layer.values
        cache.is_updated[self.layer] = True
        return cache.cross_attention_cache.update(*self.cross_attention.keys_and_values(encoder_hidden), self.layer)


class Stack(nn.Module):
    """The blocks of an encoder or a decoder, with position encoding and a final norm.

    Takes embeddings, not token ids: the vocabulary belongs to the model around it. `name`, "encoder" or "decoder", is
    the first part of the records' names; a decoder is causal, and with `cross` it also attends to an encoder's states.
    """

    main_input_name = "input_ids"  # Read by `generate`.

    def __init__(self, config: SwitchConfig, name: str = "encoder", cross: bool = False):
        super().__init__()
        self.config = config
        self.causal = name == "decoder"
        self.positions = absolute_positions(config)
        relative = config.position == "relative"
        self.position_bias = RelativePositionBias(config, bidirectional=not self.causal) if relative else None
        self.convolution = TokenConvolution(config) if config.conv_width and not self.causal else None
        self.blocks = nn.ModuleList(
            Block(config, name, layer, self.causal, cross) for layer in range(config.depth(name))
        )
        self.final_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)

    def forward(
        self,
        embeddings: Tensor,
        mask: Tensor,
        interventions: AnyInterventions = None,
        encoder_hidden: Tensor | None = None,
        encoder_mask: Tensor | None = None,
        cache: Cache | None = None,
        extras: Extras = NO_EXTRAS,
    ) -> StackOutput:
        """(B, T, D) embeddings and a (B, S) bool mask -> hidden states and a record per sparse layer.

        Args:
            mask: (B, T) of these tokens, or (B, S) of those in the cache and these.
            encoder_hidden, encoder_mask: (B, S', D) states of an encoder and their (B, S') bool mask.
            cache: transformers' cache of earlier tokens; these are added to it.
            extras: optional outputs.

        Raises:
            ValueError: when interventions name an expert or a token that does not exist, or for encoder states without
                a mask.
        """
        # 1. Positions, attention masks and cache.
        embeddings, inputs = self._prepare(
            embeddings, mask, interventions, encoder_hidden, encoder_mask, cache, extras.attentions
        )

        # 2. Blocks.
        hidden, records, states, weights, crossed, outputs = self.dropout(embeddings), [], [], [], [], []
        for block in self.blocks:
            if extras.hidden_states:
                states.append(hidden)
            hidden, own, (own_weights, own_crossed), output = block(hidden, inputs)
            outputs += [] if output is None else [output]
            records += own
            weights.append(own_weights)
            crossed.append(own_crossed)
        hidden = self.dropout(self.final_norm(hidden))
        return StackOutput(
            hidden,
            tuple(records),
            expert_outputs=tuple(outputs),
            hidden_states=(*states, hidden) if extras.hidden_states else None,
            attentions=tuple(weights) if extras.attentions else None,
            cross_attentions=tuple(crossed) if extras.attentions and encoder_hidden is not None else None,
        )

    def _prepare(
        self,
        embeddings: Tensor,
        mask: Tensor,
        interventions: AnyInterventions,
        encoder_hidden: Tensor | None,
        encoder_mask: Tensor | None,
        cache: Cache | None,
        weights_wanted: bool,
    ) -> tuple[Tensor, Inputs]:
        """Embeddings with positions, and what every block takes besides. Arguments as `forward`."""
        if self.training and self.blocks[0].gradient_checkpointing:
            cache = None  # Recomputing a block would add its keys a second time.
        if (encoder_hidden is None) != (encoder_mask is None):
            raise ValueError("Give an encoder's states and their mask, or neither of them.")
        before = 0 if cache is None else cache.get_seq_length()
        if before and mask.shape[1] == embeddings.shape[1]:
            mask = torch.cat([mask.new_ones(mask.shape[0], before), mask], dim=1)
        embeddings, bias = self._with_positions(embeddings, mask, before)
        dtype = self.final_norm.weight.dtype
        inputs = Inputs(
            mask=mask[:, before:],
            bias=bias,
            interventions=interventions,
            encoder_hidden=encoder_hidden,
            encoder_bias=None if encoder_mask is None else padding_bias(encoder_mask, dtype),
            cache=cache,
            past_tokens=None if cache is None else mask[:, :before].sum(dim=1),
            weights_wanted=weights_wanted,
            turned=rotation(_positions(mask)[:, before:], self.config) if self.config.position == "rotary" else None,
        )
        return embeddings, inputs

    def _with_positions(self, embeddings: Tensor, mask: Tensor, before: int) -> tuple[Tensor, Tensor]:
        """Embeddings (B, T, D) with positions and convolution, and the attention bias (B or 1, H or 1, T, S).

        `mask` (B, S) covers the `before` tokens in the cache and these.
        """
        tokens, dtype = embeddings.shape[1], self.final_norm.weight.dtype
        bias = padding_bias(mask, dtype)
        if self.position_bias is not None:
            bias = self.position_bias(tokens, before + tokens, embeddings.device) + bias
        if self.positions is not None:
            embeddings = embeddings + self.positions(_positions(mask)[:, before:])
        if self.config.embedding_norm:
            embeddings = nn.functional.rms_norm(embeddings, embeddings.shape[-1:])
        if self.convolution is not None:
            embeddings = self.convolution(embeddings, mask)
        if self.causal and tokens > 1:
            bias = bias + causal_bias(tokens, before + tokens, dtype, embeddings.device)
        return embeddings, bias


def _positions(mask: Tensor) -> Tensor:
    """(B, S) positions of tokens from 0, by their (B, S) mask. Left padding does not count."""
    position_BS = (mask.cumsum(dim=1) - 1).clamp(min=0)
    return position_BS
