"""Decoders with rotary positions and top-k experts are Mixtral models of transformers, and the reverse."""

import json

import pytest
import torch
from transformers import MixtralForCausalLM

from switch_model import SwitchConfig, SwitchForCausalLM, load_checkpoint
from switch_model.storage.errors import CheckpointError
from tests.support.moe_models import save_tiny, tiny
from train.cli.main import main
from train.weights.mixtral import as_mixtral, of_mixtral

SETTINGS = dict(
    vocab_size=24, d_model=32, d_kv=8, d_ff=48, num_heads=4, num_layers=2, num_experts=4, router="topk",
    position="rotary", dense_act_fn="gated-silu", eval_capacity_factor=None, d_expert=24, tie_word_embeddings=False,
)  # fmt: skip


@pytest.fixture
def model() -> SwitchForCausalLM:
    torch.manual_seed(0)
    made = SwitchForCausalLM(SwitchConfig(**SETTINGS))
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return made.eval()


IDS = torch.tensor([[4, 9, 2, 17, 5, 11], [0, 0, 7, 3, 8, 21]])
MASK = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_a_plain_decoder_is_a_mixtral_of_transformers(model, tied, tmp_path):
    if tied:
        model = SwitchForCausalLM(SwitchConfig(**SETTINGS | {"tie_word_embeddings": True})).eval()
    as_mixtral(model).save_pretrained(tmp_path)
    theirs = MixtralForCausalLM.from_pretrained(tmp_path).eval()
    # Their generation counts positions without padding, as ours always does; its forward must be told.
    position_ids = (MASK.cumsum(-1) - 1).clamp(min=0)
    expected = theirs(IDS, attention_mask=MASK, position_ids=position_ids).logits
    found = model(IDS, attention_mask=MASK).logits
    torch.testing.assert_close(found[MASK.bool()], expected[MASK.bool()], atol=1e-4, rtol=1e-4)
    again = of_mixtral(theirs)
    torch.testing.assert_close(
        again(IDS, attention_mask=MASK).logits[MASK.bool()], found[MASK.bool()], atol=1e-4, rtol=1e-4
    )
    written = dict(attention_mask=MASK, max_new_tokens=5, do_sample=False)
    assert torch.equal(model.generate(IDS, **written), theirs.generate(IDS, **written))


@torch.no_grad()
def test_a_mixtral_with_shared_keys_becomes_one_of_ours():
    theirs = tiny("mixtral")  # Four heads, two of keys and values.
    ours = of_mixtral(theirs)
    torch.testing.assert_close(ours(IDS[:1]).logits, theirs(IDS[:1]).logits, atol=1e-4, rtol=1e-4)
    record = ours(IDS[:1], output_routing=True).routing[1]
    logits = theirs(IDS[:1], output_router_logits=True).router_logits[1]
    assert record.experts[0].tolist() == logits.topk(2, dim=-1).indices.tolist()


@torch.no_grad()
def test_rotary_positions_see_distances_alone_and_a_cache_changes_nothing(model):
    shifted = model(torch.cat([torch.zeros(1, 3, dtype=torch.long), IDS[:1]], dim=1), torch.tensor([[0] * 3 + [1] * 6]))
    torch.testing.assert_close(shifted.logits[:, 3:], model(IDS[:1]).logits, atol=1e-5, rtol=1e-5)
    settings = dict(max_new_tokens=6, do_sample=False)
    assert torch.equal(model.generate(IDS, **settings), model.generate(IDS, use_cache=False, **settings))
    swapped = model(IDS[:1, [1, 0, 2, 3, 4, 5]]).logits
    assert not torch.allclose(swapped[:, -1], model(IDS[:1]).logits[:, -1], atol=1e-3), "order matters"


def test_what_is_no_mixtral_is_named():
    model = SwitchForCausalLM(SwitchConfig(**SETTINGS | {"dense_act_fn": "relu", "num_shared_experts": 1}))
    with pytest.raises(CheckpointError, match="--dense_act_fn gated-silu --num_shared_experts 0"):
        as_mixtral(model)
    with pytest.raises(ValueError, match="turns pairs"):
        SwitchConfig(position="rotary", d_kv=7)


def test_a_run_is_packaged_as_mixtral_and_imported_again(tmp_path, capsys):
    path, run, there, back = (tmp_path / name for name in ("texts.csv", "run", "mixtral", "back"))
    path.write_text("text\n" + "\n".join(["the team won the match in the rain"] * 60) + "\n")
    shape = ["--preset", "tiny", "--d_model", "16", "--num_heads", "2", "--vocab_size", "200", "--seq_len", "16"]
    kind = ["--router", "topk", "--position", "rotary", "--dense_act_fn", "gated-silu", "--embedding_norm", "false"]
    asked = ["--dataset", str(path), "--task", "clm", *shape, *kind, "--max_steps", "2", "--output_dir", str(run)]
    assert main(asked) == 0
    capsys.readouterr()
    assert main(["package", "--run", str(run), "--output", str(there), "--as", "mixtral"]) == 0
    assert json.loads(capsys.readouterr().out)["logits_differ_by"] < 1e-4
    assert MixtralForCausalLM.from_pretrained(there).config.num_local_experts == 4
    assert main(["import", str(there), "--output_dir", str(back)]) == 0
    assert "--task clm" in capsys.readouterr().out
    first, again = load_checkpoint(run / "best")[0], load_checkpoint(back)[0]
    torch.testing.assert_close(again(IDS).logits, first(IDS).logits, atol=1e-4, rtol=1e-4)


def test_a_folder_with_another_model_says_what_can_be_imported(tmp_path, capsys):
    assert (
        main(["import", str(save_tiny(tmp_path / "olmoe", tiny("olmoe"))), "--output_dir", str(tmp_path / "out")]) == 2
    )
    assert "'mixtral'" in capsys.readouterr().err
