"""Explore in a real Chromium: type, route, click, keys, links and records, hostile text, a phone."""

import itertools

from tests.support.explore_page import TEXT, cell, choose_model, open_detail, route, wait_for_cells, wait_for_words

HOSTILE = "<script>hacked=1</script> <img src=x onerror=hacked=2> ${window.hacked=3} {{7*7}} `C:\\users`"


def test_type_route_and_look_closer(page):
    route(page, TEXT)
    assert page.locator(".grid-token").all_text_contents()[:9] == TEXT.split()
    assert page.locator(".cell[data-t]").count() == 2 * len(TEXT.split())
    wait_for_words(page, "#prediction", f"{len(TEXT.split())} tokens")
    cell(page, 4, 1).click()
    wait_for_words(page, "#token h2", "in layer 3")
    assert page.inner_text("#token h2") == "oil in layer 3"
    assert page.locator("#token .stack").count() == 2
    # The expert's number in the cell is the one that the card names, and the row of experts marks.
    number = cell(page, 4, 1).inner_text()
    assert page.inner_text("#token .place").startswith(f"Expert {number}")
    wait_for_words(page, "#what-if h2", "oil went elsewhere in layer 3")
    assert page.locator("#what-if .what-row.own .chip").inner_text() == number
    # Other tabs draw what is in view once they are opened.
    open_detail(page, "Layer")
    wait_for_words(page, "#load h2", "layer 3")
    page.wait_for_selector("#probabilities .js-plotly-plot")
    page.wait_for_function("document.querySelector('#probabilities h2').textContent.endsWith('layer 3')")
    open_detail(page, "Flow")
    page.wait_for_selector("#sankey .js-plotly-plot")


def test_tooltip_tells_expert_probability_and_slot(page):
    cell(page, 1, 0).hover()
    said = page.inner_text(".grid-tip")
    assert "layer 1 · expert" in said and "probability 0." in said and ("slot" in said or "place" in said)
    label = cell(page, 1, 0).get_attribute("aria-label")
    assert "expert" in label and "probability" in label


def test_keyboard_reaches_and_picks_every_cell(page):
    route(page, TEXT)
    assert page.locator('.cell[tabindex="0"]').count() == 1, "one tab stop for the whole grid"
    page.locator('.cell[tabindex="0"]').focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")  # Stays in the last layer.
    assert page.evaluate("[document.activeElement.dataset.t, document.activeElement.dataset.l]") == ["1", "1"]
    assert page.locator(".grid-tip").is_visible()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#token h2').textContent === 'prices in layer 3'")
    assert page.locator('.cell[tabindex="0"]').count() == 1


def test_legend_lights_one_expert(page):
    route(page, TEXT)
    number = cell(page, 0, 0).inner_text()
    chip = page.locator(f'button.chip[data-expert="{number}"]')
    chip.click()
    lit = page.locator(".cell[data-t]:not(.dim)").all_inner_texts()
    assert lit and set(lit) == {number}
    assert chip.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.locator(".cell.dim").count() == 0


def test_a_vote_leads_to_its_tokens(page):
    choose_model(page, "votes")
    open_detail(page, "Attribution")
    wait_for_words(page, "#votes h2", "layer 3")
    route(page, TEXT)
    # The votes of this text, not of the one before, which has two tokens.
    page.wait_for_function(
        """[...document.querySelectorAll("#votes tbody .count")]
          .reduce((sum, one) => sum + parseInt(one.textContent), 0) > 2"""
    )
    button = page.locator("#votes button.vote").last
    name, expert = button.get_attribute("data-name"), button.get_attribute("data-expert")
    button.click()
    # The strongest token behind the number is looked at, the expert's cells of that layer alone are lit, and the
    # bars below the words are this class's.
    page.wait_for_selector('.cell.selected[data-l="1"]')
    lit = page.locator(".cell[data-t]:not(.dim)")
    shown = lit.evaluate_all("cells => cells.map(cell => cell.dataset.l + cell.innerText)")
    assert shown == [f"1{expert}"] * lit.count()
    said = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert f"expert {expert}" in said and f"vote for {name}" in said
    assert page.locator(".grid-vote").count() == len(TEXT.split()) + page.locator(".grid-key .grid-vote").count()
    choose_model(page, "tiny")
    page.wait_for_function("!document.querySelector('.grid-vote')")


def test_switch_force_and_slide_then_take_it_back(page):
    route(page, TEXT)
    before = page.locator(".cell[data-t]").all_inner_texts()
    expert = cell(page, 0, 0).inner_text()
    open_detail(page, "Experts")
    page.click(f'.switch[data-l="0"][data-e="{expert}"]')
    page.wait_for_selector("#prediction .changed-bars")
    page.wait_for_selector('.cell.changed[data-t="0"][data-l="0"]')
    assert cell(page, 0, 0).inner_text() != expert
    assert f"before: expert {expert}" in cell(page, 0, 0).get_attribute("aria-label")
    # The token that is looked at goes where one sends it.
    cell(page, 2, 1).click()
    open_detail(page, "Token")
    # What each expert would make of it comes a moment after the router's own probabilities.
    wait_for_words(page, "#what-if", "regret")
    assert "rose" in page.inner_text("#what-if h2")
    other = page.locator("#what-if button.what-row:not(.own)").first
    wanted = other.get_attribute("data-expert")
    other.click()
    page.wait_for_function(f"document.querySelector('.cell[data-t=\"2\"][data-l=\"1\"]').textContent === '{wanted}'")
    # The slider drops tokens as it moves.
    open_detail(page, "Experts")
    page.locator(".panel-capacity input").focus()
    page.keyboard.press("Home")
    page.wait_for_selector(".cell.dropped[data-t]")
    assert "0.25" in page.inner_text(".panel-capacity output")
    page.keyboard.press("End")
    page.wait_for_function("!document.querySelector('.cell.dropped[data-t]')")
    page.click('[data-act="undo"]')
    page.wait_for_function("!document.querySelector('.panel-acts').textContent.includes('capacity')")
    page.click('[data-act="reset"]')
    page.wait_for_function("!document.querySelector('#prediction .changed-bars')")
    wait_for_cells(page, before)
    open_detail(page, "Attribution")
    page.click("[data-measure]")
    page.wait_for_selector(".grid-matter")
    page.wait_for_selector("#votes .matters td")
    open_detail(page, "Experts")
    page.wait_for_function("document.querySelectorAll('.panel-bar').length === 2 * 4")


def test_changes_of_the_routing_are_told_beside_the_prediction_until_they_are_reset(page):
    line = page.locator("#prediction .changes-line")
    route(page, TEXT)
    assert line.count() == 0
    open_detail(page, "Experts")
    page.click(".switch[data-l='0'][data-e='1']")
    page.click(".switch[data-l='1'][data-e='2']")
    wait_for_words(page, "#prediction .changes-line", "2 changes of the routing apply to this text")
    route(page, "the team won")
    for name in ("Token", "Layer", "Experts", "Attribution", "Flow"):
        open_detail(page, name)
        assert line.is_visible(), name
    open_detail(page, "Token")
    line.get_by_role("button", name="Reset").click()
    line.wait_for(state="detached")
    page.wait_for_function("!document.querySelector('#prediction .changed-bars')")


def test_a_press_counts_though_its_switch_is_drawn_anew_before_the_release(open_page):
    page = open_page()
    open_detail(page, "Experts")
    page.hover('.switch[data-l="0"][data-e="1"]')
    page.mouse.down()
    page.evaluate('document.querySelector(\'.switch[data-l="0"][data-e="2"]\').click()')
    page.wait_for_function("document.querySelector('.panel-acts .facts').textContent.includes('Changed')")
    page.mouse.up()
    page.wait_for_function("document.querySelector('.panel-acts .facts').textContent.split('layer 1 off').length === 3")


def test_the_place_chosen_last_counts_while_the_server_is_slow(page):
    route(page, TEXT)
    held, slow = [], [True]
    page.route("**/queue/join**", lambda request: held.append(request) if slow else request.continue_())
    for token in (1, 4, 2):
        cell(page, token, 1).click()
    slow.clear()
    for request in held:
        request.continue_()
    wait_for_words(page, "#token h2", "rose in layer 3")
    page.unroute("**/queue/join**")


def test_each_of_several_quick_clicks_is_a_step_back(page):
    route(page, TEXT)
    open_detail(page, "Experts")
    page.wait_for_selector(".switch")
    # In one go: all but the first wait for an answer.
    page.evaluate("[0, 1, 2].forEach((e) => document.querySelector(`.switch[data-l='0'][data-e='${e}']`).click())")
    for count in (3, 2, 1, 0):
        page.wait_for_function(
            "count => document.querySelectorAll('.switch.off').length === count "
            "&& document.querySelector('.panel-acts .facts').textContent.split('layer 1 off').length === count + 1",
            arg=count,
        )
        if count:
            page.click('[data-act="undo"]:enabled')


def test_a_lost_answer_leaves_the_panel_alive(new_page, address):
    page, wrong = new_page(), []
    page.on("pageerror", lambda error: wrong.append(error))
    page.goto(address)
    page.wait_for_selector("#what-if .what-row")
    open_detail(page, "Experts")
    page.wait_for_selector(".switch")
    route(page, TEXT)
    page.clock.install()
    first, second = (f'.switch[data-l="0"][data-e="{expert}"]' for expert in (0, 1))

    def lose(chip):
        page.route("**/queue/join*", lambda request: request.fulfill(status=429, json={"detail": "Many people"}))
        with page.expect_response("**/queue/join*"):
            page.click(chip)
        assert page.locator(f"{chip}.off").count() == 1
        page.unroute("**/queue/join*")

    lose(first)
    page.clock.fast_forward(21_000)
    page.wait_for_function("!document.querySelector('.switch.off')")
    page.click(second)
    page.wait_for_selector("#prediction .changed-bars")
    assert page.locator(".switch.off").count() == page.locator(f"{second}.off").count() == 1
    # Another text is no answer, yet ends the waiting: what is clicked then goes out at once.
    lose(first)
    route(page, "the team won")
    page.wait_for_function("document.querySelectorAll('.switch.off').length === 1")
    page.click(second)
    page.wait_for_function("!document.querySelector('#prediction .changed-bars')")
    assert not wrong, wrong


def test_an_edited_text_is_marked_until_it_is_routed_or_typed_back(page):
    hint = page.locator("#routing-grid .notice")
    route(page, TEXT)
    hint.wait_for(state="hidden")
    page.locator("#text textarea").press("End")
    page.keyboard.type("s")
    hint.wait_for(state="visible")
    page.keyboard.press("Backspace")
    hint.wait_for(state="hidden")
    page.keyboard.type(" the")
    hint.wait_for(state="visible")
    page.keyboard.press("Control+Enter")
    hint.wait_for(state="hidden")
    page.keyboard.type("x")
    hint.wait_for(state="visible")
    page.click("#random")
    hint.wait_for(state="hidden")


def test_whole_words_show_the_experts_of_their_pieces(page):
    route(page, "oilteam prices")
    assert page.locator(".grid-token").count() > 2
    pieces = [(one.inner_text(), one.get_attribute("class")) for one in cells_of_layer(page, 0)]
    page.click("[data-together]")
    assert page.locator(".grid-token").all_text_contents() == ["oilteam", "prices"]
    # Neighbours with one route share a cell; nothing is lost or reordered.
    together = [one.inner_text() for one in cells_of_layer(page, 0)]
    shared = itertools.groupby(pieces[:-1], key=lambda piece: (piece[0], "dropped" in piece[1]))
    assert together == [*(expert for (expert, _), _ in shared), pieces[-1][0]]
    page.click("[data-together]")
    assert page.locator(".grid-token").count() > 2


def cells_of_layer(page, layer):
    return page.locator(f'.cell[data-t][data-l="{layer}"]').all()


def test_a_link_and_a_saved_record_show_the_same_again(open_page, tmp_path):
    page = open_page()
    route(page, TEXT)
    open_detail(page, "Experts")
    page.click('.switch[data-l="0"][data-e="1"]')
    page.wait_for_selector("#prediction .changed-bars")
    page.wait_for_selector("#routing-grid .cell.changed")
    experts = page.locator("#routing-grid .cell[data-t]").all_inner_texts()
    page.click("#copy-link")
    page.wait_for_function("document.querySelector('#link textarea, #link input').value.length > 20")
    other = open_page("#s=" + page.input_value("#link textarea, #link input"))
    other.wait_for_selector("#prediction .changed-bars")
    wait_for_cells(other, experts)
    assert other.input_value("#text textarea") == TEXT
    with page.expect_download() as record:
        page.click("#keep-json")
    record.value.save_as(tmp_path / "record.json")
    route(page, "the team won")
    (tmp_path / "other.json").write_text('{"a": 1}', encoding="utf-8")
    opens = "[data-testid='Open a record…-upload-button']"
    page.set_input_files(opens, str(tmp_path / "other.json"))
    wait_for_words(page, "#link-said", "not a record")
    assert page.locator(".grid-token").all_text_contents() == ["the", "team", "won"]
    page.set_input_files(opens, str(tmp_path / "record.json"))
    wait_for_words(page, "#notice", "was saved")
    wait_for_cells(page, experts)


def test_hostile_text_stays_text(page):
    route(page, HOSTILE)
    assert "script" in page.locator(".grid-token").all_text_contents()
    page.locator(".cell[data-t]").first.click()
    page.wait_for_function("document.querySelector('#token h2').textContent.startsWith('< in')")
    assert page.evaluate("window.hacked") is None
    assert page.locator("#routing-grid img, #token img, #prediction img").count() == 0


def test_empty_text_and_samples(page):
    page.fill("#text textarea", "   ")
    page.click("#route")
    page.wait_for_selector("#prediction .message")
    assert "Type a text" in page.inner_text("#prediction")
    page.click("#browse")
    page.wait_for_selector(".sample")
    page.fill("#query textarea, #query input", "norway oil")
    page.wait_for_function("document.querySelectorAll('.sample').length === 1")
    page.click(".sample")
    page.wait_for_selector("#prediction .bar")
    wait_for_words(page, "#prediction", "true label: Business")
    page.wait_for_function("document.querySelector('#text textarea').value.startsWith('Oil prices climbed')")


def test_a_tap_on_a_phone_opens_the_details_over_the_page(open_page):
    page = open_page(theme="dark", width=390, height=844, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]") < 128
    route(page, TEXT)
    sheet = page.locator("#detail.sheet")
    assert sheet.count() == 0
    cell(page, 4, 1).tap()
    wait_for_words(page, "#token h2", "oil in layer 3")
    box = sheet.bounding_box()
    assert box["y"] > 200 and abs(box["y"] + box["height"] - 844) < 2, (
        "it leaves the grid in view, and ends with the screen"
    )
    tapped = cell(page, 4, 1).bounding_box()
    assert tapped["y"] >= 0 and tapped["y"] + tapped["height"] <= box["y"]
    for target in (
        "#routing-grid .cell[data-t]",
        ".layer-choice",
        ".sheet-close",
        "#detail-tabs .tab-container button",
    ):
        sizes = page.locator(target).evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).filter(box => box.width).map(box => box.height)"
        )
        assert sizes and min(sizes) >= 40, target
    # The heat map is wider than the screen: it fades where it goes on, and the keyboard reaches it.
    open_detail(page, "Layer")
    wide = page.locator("#probabilities [data-more=after]")
    wide.wait_for()
    wide.focus()
    assert wide.evaluate("one => one === document.activeElement")
    wide.evaluate("one => one.scrollTo(1000, 0)")
    page.wait_for_selector("#probabilities [data-more=before]")
    page.tap(".sheet-close")
    sheet.wait_for(state="detached")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
