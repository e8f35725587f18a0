"""Stack: the blocks of a Switch Transformer, from embeddings to hidden states, with the record of every sparse layer.

Legend: B batch, T tokens, D d_model. T5's pre-norm layout (1910.10683) with the MLPs of sparse layers replaced.
"""

from torch import Tensor, nn

from switch_model.attention import Attention, RelativePositionBias, padding_bias
from switch_model.config import SwitchConfig
from switch_model.dropout import Dropout
from switch_model.interventions import AnyInterventions, rows_of
from switch_model.layers import DenseMLP
from switch_model.routing import Routing
from switch_model.sparse_mlp import SparseMLP


class Block(nn.Module):
    """Self-attention, then a dense or a sparse MLP, each on a normalised copy and added to the residual stream."""

    def __init__(self, config: SwitchConfig, name: str, sparse: bool):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = SparseMLP(config, name) if sparse else DenseMLP(config)
        self.dropout = Dropout(config.dropout_rate)

    def forward(
        self, hidden: Tensor, mask: Tensor, bias: Tensor, interventions: AnyInterventions
    ) -> tuple[Tensor, Routing | None]:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), bias))
        normed, routing = self.mlp_norm(hidden), None
        if isinstance(self.mlp, SparseMLP):
            update, routing = self.mlp(normed, mask, interventions)
        else:
            update = self.mlp(normed)
        return hidden + self.dropout(update), routing


class Stack(nn.Module):
    """`num_layers` blocks under one relative position bias, and a final norm.

    Takes embeddings, not token ids: whoever owns the vocabulary (a classifier, a language model, another encoder)
    stays outside. `name` is the first half of the records' names.
    """

    def __init__(self, config: SwitchConfig, name: str = "encoder"):
        super().__init__()
        self.config = config
        self.position_bias = RelativePositionBias(config)
        self.blocks = nn.ModuleList(
            Block(config, f"{name}.{layer}", config.is_sparse(layer)) for layer in range(config.num_layers)
        )
        self.final_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate)

    def forward(
        self, embeddings: Tensor, mask: Tensor, interventions: AnyInterventions = None
    ) -> tuple[Tensor, tuple[Routing, ...]]:
        """(B, T, D) embeddings and a (B, T) bool mask -> (B, T, D) hidden states and a record per sparse layer.

        Raises ValueError when interventions name a layer, an expert or a token that is not there.
        """
        for row in rows_of(interventions, batch=len(embeddings)):
            row.check_layers(self.config.sparse_layers)
        tokens = embeddings.shape[1]
        bias = self.position_bias(tokens, tokens, embeddings.device)
        bias = bias + padding_bias(mask, bias.dtype)
        hidden, records = self.dropout(embeddings), []
        for block in self.blocks:
            hidden, routing = block(hidden, mask, bias, interventions)
            if routing is not None:
                records.append(routing)
        return self.dropout(self.final_norm(hidden)), tuple(records)
