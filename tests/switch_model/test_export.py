"""Graphs made of a model hold for texts of every length, in batches of every size, whoever they are routed to.

The texts that a graph is made of go to few experts, so that what follows from their routing would show.
"""

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from switch_model import Interventions
from switch_model.config import SwitchConfig
from switch_model.export.torchao_int8 import Rows, prepare
from switch_model.layers import attention, dispatch, hashed_bigrams
from switch_model.layers.attention import RelativePositionBias
from switch_model.layers.experts import Experts
from tests.support.heads import has_decoder_over_encoder, make, tokens

ANY = torch.export.Dim.DYNAMIC
SMALL = dict(num_layers=1, num_decoder_layers=1, num_experts=3, relative_attention_max_distance=20)
MANY_OPTIONS = dict(
    bigram_buckets=30,
    conv_width=3,
    counted_rows=200,
    cls_token=True,
    pooling="first",
    router_priority="probability",
    capacity_group="batch",
    dense_act_fn="gated-gelu",
)


class Logits(nn.Module):
    """A model with tensors in and a tensor out; interventions are part of the graph."""

    def __init__(self, model: nn.Module, interventions=None):
        super().__init__()
        self.model, self.interventions = model, interventions

    def output(self, input_ids, attention_mask, decoder_input_ids=None, **asked):
        if decoder_input_ids is not None:
            asked["decoder_input_ids"] = decoder_input_ids
        return self.model(input_ids, attention_mask, interventions=self.interventions, **asked)

    def forward(self, *given: Tensor) -> Tensor:
        return self.output(*given)[0]


def texts(head: str, batch: int, length: int, side: str = "right") -> list[Tensor]:
    """Ids and mask; every row with more padding than the one before."""
    places, gaps = torch.arange(length), (torch.arange(batch) * 3 % length).unsqueeze(1)
    mask = (places >= gaps) if side == "left" else (places < length - gaps)
    given = [tokens(batch, length) * mask, mask.long()]
    return [*given, tokens(batch, length // 2 + 1)] if has_decoder_over_encoder(head) else given


def routed_the_same_to_all(model: Logits, run, head: str, tolerance: float = 1e-5) -> None:
    """`run` on texts of other numbers and lengths gives the model's logits, and every expert has its turn."""
    chosen = 0
    for batch, length in [(1, 1), (1, 40), (3, 2), (32, 7), (5, 128)]:
        for side in ("left", "right"):
            given = texts(head, batch, length, side)
            with torch.no_grad():
                expected = model.output(*given, output_routing=True)
            torch.testing.assert_close(run(*given), expected[0], rtol=tolerance, atol=tolerance)
            chosen += torch.stack([record.choices for record in expected.routing])
    assert (chosen > 0).all()


def test_an_exported_program_and_its_onnx_file_serve_every_length(tmp_path):
    head = "classification"
    model = Logits(make(head, **SMALL | MANY_OPTIONS)).eval()
    example = texts(head, 2, 5)
    with torch.no_grad():
        program = torch.export.export(model, tuple(example), dynamic_shapes=[({0: ANY, 1: ANY},) * len(example)])
        routed_the_same_to_all(model, program.module(), head)
        torch.onnx.export(program, f=tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")

    def run(*given):
        named = dict(zip([entry.name for entry in session.get_inputs()], given, strict=True))
        return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in named.items()})[0])

    routed_the_same_to_all(model, run, head, tolerance=1e-4)


@pytest.mark.parametrize(("head", "activation"), [("masked", "gated-gelu"), ("conditional", "relu")])
def test_experts_as_linear_layers_and_tables_row_by_row_are_the_same(head, activation):
    model = Logits(make(head, **SMALL, dense_act_fn=activation))
    given = texts(head, 5, 9)
    expected = model(*given)
    prepare(model)
    assert not [module for module in model.modules() if isinstance(module, Experts)]
    assert isinstance(model.model.shared, Rows)
    torch.testing.assert_close(model(*given), expected)


def test_a_strict_export_serves_every_length():
    model = Logits(make("masked", **SMALL)).eval()
    shapes = [({0: ANY, 1: ANY},) * 2]
    program = torch.export.export(model, tuple(texts("masked", 2, 5)), dynamic_shapes=shapes, strict=True)
    routed_the_same_to_all(model, program.module(), "masked")


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("head", "settings"),
    [
        ("classification", MANY_OPTIONS),
        ("encoder", dict(attention_experts="module", position="sinusoidal", eval_capacity_factor=None)),
        ("masked", dict(attention_experts="projections", position="learned")),
        ("causal", dict(attention_experts="projections", block_size=9)),
        ("both", dict(expert_capacity=2)),
    ],
)
def test_a_traced_model_serves_every_length(head, settings):
    model = Logits(make(head, **SMALL | settings)).eval()
    with torch.no_grad():
        run = torch.jit.trace(model, texts(head, 2, 5))
        routed_the_same_to_all(model, run, head)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_forced_tokens_are_forced_in_every_text():
    forced = Interventions(force={("encoder.0", 0): 1, ("encoder.0", 1): 2})
    model = Logits(make("classification", **SMALL), forced).eval()
    rows = [Interventions(), forced]
    with torch.no_grad():
        for interventions, batches in [(forced, (2, 5)), (rows, (2,))]:
            model.interventions = interventions
            run = torch.jit.trace(model, texts("classification", 2, 5, "left"))
            for batch in batches:
                given = texts("classification", batch, 30, "left")
                torch.testing.assert_close(run(*given), model(*given))


def test_what_a_graph_does_otherwise_comes_out_the_same(monkeypatch):
    """Distances on the border of two buckets, hashes of word pairs, and equal gates."""
    distances = torch.arange(-400, 401)
    biases = [
        RelativePositionBias(SwitchConfig(relative_attention_num_buckets=buckets, relative_attention_max_distance=far))
        for buckets, far in [(4, 5), (32, 128), (32, 100), (16, 64), (12, 20), (64, 4096)]
    ]
    pairs = torch.randint(2**24, (2, 4, 500), generator=torch.Generator().manual_seed(1))
    pairs[:, 0, :6] = torch.tensor([[0, 0, 1, 2**24 - 1, 2**24 - 1, 4095], [0, 1, 0, 0, 2**24 - 1, 4096]])
    for buckets in (1, 30, 20_000, 2**18, 10_000_000):
        expected = hashed_bigrams.mixed(hashed_bigrams.pair_number(*pairs)) % buckets
        assert torch.equal(hashed_bigrams.bucket_by_digits(*pairs.int(), buckets), expected.int())
        # Exact below 2**24, as OpenVINO's remainders are.
        if buckets <= 2**18:
            assert torch.equal(hashed_bigrams.bucket_by_digits(*pairs.float(), buckets), expected.float())
    gates = torch.rand(4, 500, generator=torch.Generator().manual_seed(0))
    gates = torch.cat([gates, (gates * 9).round() / 9, torch.nextafter(gates, torch.ones(())), gates * 1e-42], dim=1)
    expected = [*(bias._bucket(distances) for bias in biases), dispatch.highest_first(gates)]
    monkeypatch.setattr(attention, "is_exported", lambda: True)
    monkeypatch.setattr(dispatch, "is_exported", lambda: True)
    found = [*(bias._bucket(distances) for bias in biases), dispatch.highest_first(gates)]
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)
