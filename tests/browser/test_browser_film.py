"""The film of a routing in a real Chromium: it plays, steps, follows a token, and is saved as a video."""

import itertools

from tests.support.explore_page import TEXT, cell, route, wait_for_words
from train.formatting import percent
from ui.components.training_record import read_record

# The film's position, in layers.
NOW = "Number(document.querySelector('.film-time').value)"


def open_film(page):
    """By its tab, which shows the place in view: a token in the second sparse layer."""
    route(page, TEXT)
    cell(page, 4, 1).click()
    page.wait_for_function("document.querySelector('#token h2').textContent.includes('oil in layer 3')")
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_selector(".film-stage", state="visible")
    wait_for_words(page, "#how-steps h2", TEXT.split()[4])
    wait_for_words(page, ".film-said", "layer 3: The router gives each expert a probability")


def play_and_pause(page):
    """By its button: on a phone the tab is in a menu."""
    page.click("#watch-film")
    page.wait_for_function("document.querySelector('[data-do=play]')?.textContent === 'Pause'")
    page.click("[data-do=play]")


def test_the_button_plays_the_film_from_its_beginning_each_time(page):
    open_film(page)
    for _ in range(2):  # The second time the film has the same value.
        page.get_by_role("tab", name="Explore").click()
        page.click("#watch-film")
        page.wait_for_function("document.querySelector('[data-do=play]').textContent === 'Pause'")
        assert page.evaluate(NOW) < 1  # The place in view is in the second layer.
        page.wait_for_function(f"{NOW} > 0.02")
        page.click("[data-do=play]")


def test_the_film_shows_the_token_in_view_and_steps_through_its_layers(page):
    open_film(page)
    assert 1 < page.evaluate(NOW) < 2
    said = []
    for _ in range(5):
        page.click("[data-do=on]")
        said.append(page.inner_text(".film-said"))
    assert len(set(said)) == 5
    # The formulas below are those of what the film shows.
    assert page.locator("#how-steps li.now h3").all_inner_texts() == ["7. Gate and residual"]
    # Another token, by a click on its word: the first one stands at the left.
    page.click(".film-stage", position={"x": 22, "y": 18})
    wait_for_words(page, "#how-steps h2", TEXT.split()[0])
    # A drawn picture is not one colour.
    assert (
        page.evaluate(
            "new Set(document.querySelector('.film-stage').getContext('2d').getImageData(0, 0, 400, 300).data).size"
        )
        > 20
    )


def test_it_plays_to_its_end_and_is_saved_as_a_video(page, tmp_path):
    open_film(page)
    page.select_option(".film-speed", "4")
    with page.expect_download() as video:
        page.click("[data-do=save]")
    video.value.save_as(tmp_path / "routing.webm")
    assert (tmp_path / "routing.webm").read_bytes()[:4] == b"\x1aE\xdf\xa3", "not a WebM file"
    assert page.evaluate(NOW) == 2
    wait_for_words(page, ".film-said", "Prediction: ")


def test_a_phone_plays_in_steps_with_less_motion_and_follows_every_token_of_a_long_text(open_page):
    page = open_page(width=390, height=844)
    route(page, "oil prices rose as traders worried about the winter alert the team won " * 3)
    play_and_pause(page)
    page.locator(".film-stage").press("End")
    wait_for_words(page, ".film-said", "layer 1: The router")
    last = page.inner_text("#how-steps h2 >> nth=0")
    # The strip holds a part of the text; what stands before it is paged to at its left end.
    page.click(".film-stage", position={"x": 30, "y": 18})
    page.wait_for_function("last => document.querySelector('#how-steps h2').textContent !== last", arg=last)
    page.locator(".film-stage").press("Home")
    wait_for_words(page, "#how-steps h2", "oil")

    page.emulate_media(reduced_motion="reduce")
    page.evaluate("window.moments = new Set()")
    page.select_option(".film-speed", "4")
    before = page.evaluate(NOW)
    page.click("[data-do=play]")
    page.wait_for_function(f"moments.add({NOW}) && moments.size >= 4")
    page.click("[data-do=play]")
    # Between two pictures of a film there would be hundreds of moments; steps are a tenth of a layer apart.
    # The first goes from wherever the film was paused.
    steps = [moment for moment in sorted(page.evaluate("[...moments]")) if moment != before]
    assert all(later - earlier > 0.05 for earlier, later in itertools.pairwise(steps))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_slider_of_the_recorded_training_shows_each_checkpoint(page):
    record = read_record()
    page.get_by_role("tab", name="How it works").click()
    page.wait_for_selector("#training-record .born-token")
    layer = len(record["model"]["layers"]) - 1

    def assert_shown(at):
        for place, track in enumerate(record["tracks"]):
            part = page.locator(".born-track").nth(place)
            colours = part.locator(".born-token").evaluate_all(
                "all => all.map(one => one.className.match(/x(\\d+)/)[1])"
            )
            assert colours == [str(one) for one in itertools.chain(*track["experts"][at][layer])]
            most = max(track["load"][at][layer])
            assert f", {percent(most)} of the tokens" in part.locator(".born-facts").inner_text()

    slider = page.locator("#training-record .film-time")
    assert "random weights" in page.inner_text(".born-step")
    assert_shown(0)
    slider.press("End")
    assert f"step {record['steps'][-1]:,}" in page.inner_text(".born-step")
    assert_shown(-1)
    page.locator(".born-layers button").first.click()
    layer = 0
    assert_shown(-1)
