"""The page with the bundled models in a real Chromium: its first screen at three widths, and no tab that keeps out who
reads with a screen reader or the keyboard."""

from urllib.request import Request, urlopen

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.support.explore_page import open_detail, wait_for_words
from tests.support.pages import running_app
from ui.catalog.models import MODELS_FOLDER

# Rules that a widget of Gradio's breaks: (rule, part of the element's HTML).
GRADIOS_OWN = [
    # The box around the rows of a table; the table around it is what takes the keyboard and scrolls.
    ("scrollable-region-focusable", "virtual-table-viewport"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with running_app(None, MODELS_FOLDER, tmp_path_factory.mktemp("runs")) as address:
        yield address


def findings(page, part=None, **options):
    """Serious and critical findings of axe in a part of the page: (rule, what is wrong, the element)."""
    found = []
    for rule in Axe().run(page, part, {"resultTypes": ["violations"], **options}).response["violations"]:
        if rule["impact"] not in ("serious", "critical"):
            continue
        for node in rule["nodes"]:
            if not any(rule["id"] == known and part in node["html"] for known, part in GRADIOS_OWN):
                found.append((rule["id"], node["failureSummary"], node["html"][:300]))
    return found


def findings_in_both_themes(page, part=None):
    """What Gradio's `__theme=dark` sets is a class of the body. Of all rules only that of contrast depends on it."""
    found = findings(page, part)
    page.evaluate("document.body.classList.add('dark')")
    found += findings(page, part, runOnly=["color-contrast"])
    page.evaluate("document.body.classList.remove('dark')")
    return found


def test_no_tab_has_a_serious_accessibility_finding(open_page):
    page = open_page(reduced_motion="reduce")
    page.add_style_tag(content="* { transition: none !important; }")  # Half-way colours are nobody's.
    found = {"Explore": findings_in_both_themes(page)}
    for name, part in (
        ("Token", "#token .stack"),
        ("Layer", "#probabilities .js-plotly-plot"),
        ("Experts", ".switch"),
        ("Attribution", "#votes td"),
        ("Flow", "#sankey .js-plotly-plot"),
    ):
        open_detail(page, name)
        page.wait_for_selector(part)
        found[f"Explore, {name}"] = findings_in_both_themes(page, "#detail")
    page.click("#browse")
    page.wait_for_selector(".sample")
    found["Explore, samples"] = findings_in_both_themes(page, "#samples")
    # A server that has not answered yet: plots are still to be drawn.
    held = []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.locator("#pages").get_by_role("tab", name="How it works", exact=True).first.click()
    page.wait_for_selector("#how-scaling")
    found["How it works, undrawn"] = findings(page)  # What stands in a plot's place is without text.
    for route in held:
        route.continue_()
    page.unroute("**/queue/join*")
    for name, part in (
        ("Analyse", "#analyse"),
        ("Compare", "#compare"),
        ("Models", "#model-card pre"),
        ("Train", "#data-report td"),
        ("How it works", "#how-scaling-speed .js-plotly-plot"),
    ):
        page.locator("#pages").get_by_role("tab", name=name, exact=True).first.click()
        page.wait_for_selector(part)
        found[name] = findings_in_both_themes(page)
    assert not {tab: those for tab, those in found.items() if those}


# Boxes of the first tab, as the eye sees them: [name, left, top, right, bottom].
BOXES = """parts => Object.fromEntries(parts.map(part => {
  const { left, top, right, bottom } = document.querySelector(part).getBoundingClientRect();
  return [part, { left, top, right, bottom }];
}))"""
# What is wrong with the cards: empty, cut without a hint that they scroll, or with parts over one another.
WRONG = """() => {
  const wrong = [], cards = [...document.querySelectorAll(".card")].filter(one => one.checkVisibility());
  const said = one => `${one.tagName}#${one.id}.${one.className}: ${one.textContent.trim().slice(0, 60)}`;
  const area = one => { const { width, height } = one.getBoundingClientRect(); return width * height; };
  const free = one => ["absolute", "fixed", "sticky"].includes(getComputedStyle(one).position);
  for (const card of cards) {
    if (card.innerText.trim().length < 4) wrong.push(`empty: ${said(card)}`);
    for (const one of [card, ...card.querySelectorAll("*")]) {
      if (!one.checkVisibility() || !area(one)) continue;
      const style = getComputedStyle(one);
      const blocks = [...one.children].filter(child => child.checkVisibility() && area(child) && !free(child)
        && !getComputedStyle(child).display.startsWith("inline"));
      if (style.display.startsWith("inline") || one.closest("[data-more], svg, input, textarea, select")) continue;
      const holds = one === card || style.overflowX !== "visible";
      if (holds && one.clientWidth > 1 && one.scrollWidth > one.clientWidth + 1) wrong.push(`cut: ${said(one)}`);
      blocks.forEach((first, i) => blocks.slice(i + 1).forEach(second => {
        const a = first.getBoundingClientRect(), b = second.getBoundingClientRect();
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 1 && high > 1) wrong.push(`overlap: ${said(first)} and ${said(second)}`);
      }));
    }
  }
  return wrong;
}"""


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800), (1920, 1080)])
def test_the_first_screen_is_whole(open_page, width, height):
    page = open_page(width=width, height=height)
    wait_for_words(page, "#prediction .voted", "Votes for")
    # What teaches lies above the fold; on a phone the grid begins there.
    above = ["#text", "#route", "#prediction .bar.top", "#prediction .voted"]
    above += ["#summary", "#routing-grid .grid-body", "#routing-grid .grid-legend"] if width > 390 else []
    boxes = page.evaluate(BOXES, [*above, "#grid-card", "#detail"])
    assert {part: box for part, box in boxes.items() if part in above and box["bottom"] > height} == {}
    assert boxes["#grid-card"]["top"] < height - 80
    assert all(0 <= box["left"] < box["right"] <= width for box in boxes.values())
    assert page.evaluate(WRONG) == []
    beside = boxes["#detail"]["left"] >= boxes["#grid-card"]["right"]
    assert beside == (width == 1920)


def test_the_page_is_sent_compressed(address):
    plain = urlopen(address).read()
    with urlopen(Request(address, headers={"Accept-Encoding": "gzip"})) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(answer.read()) < len(plain) / 4
