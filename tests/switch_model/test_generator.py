"""Text token by token with the routing of each, and blanks: tiny models with random weights."""

import json
import threading

import pytest
import torch

from switch_model import CheckpointError, Interventions
from switch_model.inference.decoding import Decoding
from switch_model.inference.factory import open_pipeline
from switch_model.inference.mask_filler import MaskFiller
from switch_model.inference.text_generator import TextGenerator
from tests.support.pages import save_tiny_checkpoint, save_tiny_mask_filler, save_tiny_storyteller, save_tiny_translator

PROMPT = "Once upon a time"


@pytest.fixture(scope="module", params=[save_tiny_translator, save_tiny_storyteller])
def generator(request, tmp_path_factory):
    return TextGenerator.from_checkpoint(request.param(tmp_path_factory.mktemp("models") / "tiny"), "cpu")


def drain(stream):
    """Everything that a stream yields, and what it returns."""
    texts = []
    while True:
        try:
            texts.append(next(stream))
        except StopIteration as end:
            return texts, end.value


@pytest.mark.parametrize(
    "settings", [{}, {"do_sample": True, "top_k": 20, "top_p": 0.9, "temperature": 1.5, "seed": 3}]
)
def test_the_stream_ends_with_the_text_of_a_call(generator, settings):
    whole = generator(PROMPT, max_new_tokens=12, **settings)
    texts, streamed = drain(generator.stream(PROMPT, Decoding(max_new_tokens=12, **settings)))
    assert texts[-1] == streamed.text == whole.text
    assert len(texts) >= whole.new_tokens
    assert streamed.answer.tokens == whole.answer.tokens


def test_a_call_writes_what_transformers_generate_writes(generator):
    ids = generator.tokenizer.backend_tokenizer.encode(PROMPT).ids
    expected = generator.model.generate(torch.tensor([ids]), max_new_tokens=12, num_beams=3)
    head = 1 if generator.has_encoder else len(ids)
    ours = generator(PROMPT, max_new_tokens=12, num_beams=3)
    assert (
        ours.text
        == generator.tokenizer.decode(expected[0], skip_special_tokens=True)[
            0 if generator.has_encoder else len(PROMPT) :
        ]
    )
    assert ours.new_tokens == expected.shape[1] - head


def test_every_token_written_has_its_route_and_what_might_follow(generator):
    result = generator(PROMPT, max_new_tokens=12)
    answer = result.answer
    assert [record.name for record in result.routing] == list(generator.model.config.sparse_layers)
    for trace in result.traces:
        for record in trace.routing:
            assert record.expert.shape == (1, len(trace.tokens)) and record.name.startswith(trace.stack)
    assert not any(record.dropped.any() for record in answer.routing)
    assert len(answer.tokens) == answer.written + result.new_tokens == len(result.next_tokens) == len(result.chances)
    pieces = "".join(answer.text[start:end] for start, end in answer.offsets[answer.written :])
    assert pieces.replace("\ufffd", "").strip() == result.text.replace("\ufffd", "").strip()
    # Greedy takes the likeliest each time.
    for place in range(answer.written - 1, len(answer.tokens) - 1):
        shares = [share for _, share in result.next_tokens[place]]
        assert result.chances[place] == pytest.approx(shares[0]) and shares == sorted(shares, reverse=True)
    logs = torch.tensor(result.chances[answer.written - 1 : -1]).log()
    assert result.log_probability == pytest.approx(float(logs.sum()), abs=1e-3)
    json.dumps(result.next_tokens)


def test_a_forced_and_an_ablated_expert_show_in_the_records(generator):
    before = generator(PROMPT, max_new_tokens=8)
    layer, place = before.answer.routing[-1].name, before.answer.written + 1
    other = (int(before.answer.routing[-1].expert[0, place]) + 1) % 4
    forced = generator(PROMPT, max_new_tokens=8, interventions=Interventions(force={(layer, place): other}))
    assert int(forced.answer.routing[-1].expert[0, place]) == other
    # What was written up to there had not heard of it.
    assert forced.answer.tokens[: place + 1] == before.answer.tokens[: place + 1]
    off = Interventions(ablate={(name, 1) for name in generator.model.config.sparse_layers})
    ablated = generator(PROMPT, max_new_tokens=8, interventions=off)
    assert not any((record.expert == 1).any() for record in ablated.routing)
    expected = [ablated.next_tokens[at][0][1] for at in range(ablated.answer.written - 1, len(ablated.chances) - 1)]
    assert ablated.chances[ablated.answer.written - 1 : -1] == pytest.approx(expected), "written as it was recorded"


def test_a_text_ends_when_its_reader_leaves(generator):
    stop, threads = threading.Event(), threading.active_count()
    stream = generator.stream(PROMPT, Decoding(max_new_tokens=60), stop=stop)
    next(stream)
    stop.set()
    assert drain(stream)[1].new_tokens < 60
    stream = generator.stream(PROMPT, Decoding(max_new_tokens=60))
    next(stream)
    stream.close()
    for _ in range(200):
        if threading.active_count() <= threads:
            break
        threading.Event().wait(0.05)
    assert threading.active_count() <= threads


def test_learned_positions_bound_the_text(tmp_path):
    for number, save in enumerate((save_tiny_storyteller, save_tiny_translator)):
        bounded = TextGenerator.from_checkpoint(
            save(tmp_path / str(number), position="learned", max_positions=16), "cpu"
        )
        result = bounded(PROMPT * 20, max_new_tokens=50)
        assert result.truncated and result.new_tokens >= 1 and len(result.answer.tokens) <= 17


def test_settings_that_do_not_fit_are_named(generator):
    for settings, words in (
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": 0.0}, "temperature"),
        ({"do_sample": True, "num_beams": 2}, "exclude each other"),
    ):
        with pytest.raises(ValueError, match=words):
            generator(PROMPT, **settings)
    if generator.has_encoder:
        with pytest.raises(ValueError, match="empty"):
            generator("  ")


def test_cut_characters_belong_to_the_token_that_completes_them(tmp_path):
    from switch_model.inference.traces import written_tokens

    tokenizer = TextGenerator.from_checkpoint(save_tiny_storyteller(tmp_path / "tiny"), "cpu").tokenizer
    backend = tokenizer.backend_tokenizer
    ids = [backend.token_to_id(piece) for piece in ("a", "à", "¥", "§", "b")]  # The three bytes of one letter.
    text, tokens, offsets = written_tokens(tokenizer, ids, [])
    assert text == "a\u0967b" and tokens == ["a", "\ufffd", "\ufffd", "\u0967", "b"]
    assert offsets == [(0, 1), (1, 1), (1, 1), (1, 2), (2, 3)]


# ---- blanks ----


@pytest.fixture(scope="module")
def filler(tmp_path_factory):
    return MaskFiller.from_checkpoint(save_tiny_mask_filler(tmp_path_factory.mktemp("models") / "tiny"), "cpu")


def test_blanks_are_found_and_filled(filler):
    filling = filler("Oil ___ rose, the [MASK] won")
    assert filling.answer.tokens == ["Oil", "___", "rose", ",", "the", "___", "won"]
    assert [blank.token for blank in filling.blanks] == [1, 5]
    words = [blank.candidates[0][0] for blank in filling.blanks]
    assert filling.text == f"Oil {words[0]} rose, the {words[1]} won"
    # The same as asking the model by hand.
    ids = filler.tokenizer.backend_tokenizer.encode("Oil [MASK] rose, the [MASK] won").ids
    probs = filler.model(torch.tensor([ids])).logits[0, 1].softmax(-1).tolist()
    name, share = filling.blanks[0].candidates[0]
    assert share == pytest.approx(probs[filler.tokenizer.convert_tokens_to_ids(name)])
    off = filler("Oil ___", Interventions(ablate={("encoder.0", 2)}))
    assert not (off.routing[0].expert == 2).any()


def test_no_blank_and_blanks_too_far_say_so(filler):
    with pytest.raises(ValueError, match="no blank: write ___"):
        filler("Oil prices rose")
    with pytest.raises(ValueError, match="no blank within"):
        filler("oil " * 50 + "___")


def test_a_cls_token_is_shown(tmp_path):
    filler = MaskFiller.from_checkpoint(save_tiny_mask_filler(tmp_path / "tiny", cls_token=True), "cpu")
    filling = filler("Oil ___ rose")
    assert filling.answer.tokens[filling.blanks[0].token] == "___"
    assert filling.routing[0].expert.shape == (1, len(filling.answer.tokens)) == (1, 4)


def test_each_kind_opens_as_what_it_is(tmp_path):
    saves = (save_tiny_checkpoint, save_tiny_translator, save_tiny_storyteller, save_tiny_mask_filler)
    opened = [open_pipeline(save(tmp_path / save.__name__), "cpu") for save in saves]
    assert [type(one).__name__ for one in opened] == ["Predictor", "TextGenerator", "TextGenerator", "MaskFiller"]
    with pytest.raises(CheckpointError, match="does not generate"):
        TextGenerator.from_checkpoint(tmp_path / "save_tiny_checkpoint", "cpu")
