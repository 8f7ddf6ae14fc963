"""The page and the notebook display: what they hold, and how the page behaves in a real browser."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

import chainrule as cr
from chainrule.explain import html
from chainrule.explain.heat import heat
from chainrule.explain.script import run_script
from chainrule.explain.walkthrough import walkthrough

PROGRAM = """\
from math import sqrt
import chainrule as cr

cr.manual_seed(42)
x, y = cr.randn(200, 100), cr.randn(200)
w1 = (cr.randn(100, 50) * sqrt(2 / 100)).requires_grad_()
b1 = cr.zeros(50, requires_grad=True)
w2 = (cr.randn(50, 1) * sqrt(2 / 50)).requires_grad_()
b2 = cr.zeros(1, requires_grad=True)


def lin(x, w, b):
    return x @ w + b


def relu(x):
    return x.clamp_min(0.0)


def mse(output, targ):
    return (output.squeeze(-1) - targ).pow(2).mean()


l1 = lin(x, w1, b1)
l2 = relu(l1)
out = lin(l2, w2, b2)
loss = mse(out, y)
loss.backward()
"""
NAMES = ("w1", "b1", "w2", "b2")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """The page's net: its variables, and its explanations."""
    script = tmp_path_factory.mktemp("net") / "net.py"
    script.write_text(PROGRAM)
    variables = run_script(script).results
    return variables, [cr.explain(variables["loss"], wrt=variables[name]) for name in NAMES]


@pytest.fixture(scope="module")
def page(net):
    _, explanations = net
    return html.page(explanations, loss_curve=[3.0, 2.0, 1.5], title="The page's net")


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium")
    assert chromium, "the browser tests drive an installed chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page at a size and a colour scheme; at the end nothing may have been said on the console, or fetched."""
    said, fetched, contexts = [], [], []

    def open_page(content, width=1280, height=900, scheme="light"):
        path = tmp_path / f"{len(contexts)}.html"
        html.write_page(path, content)
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: fetched.append(request.url))
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in fetched if not url.startswith(("file:", "data:"))] == []


# --- the page as a file


def test_the_page_is_one_file_under_a_megabyte(page):
    assert len(page.encode()) < 1_000_000
    fetched = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            fetched.extend(
                value for name, value in attrs if name in ("src", "srcset", "data") or (tag, name) == ("link", "href")
            )

    Tags().feed(page)
    assert fetched == []
    assert "@import" not in page
    assert 'charset="utf-8"' in page[:300]


def test_the_page_names_every_link_once_and_in_backward_order(net):
    _, explanations = net
    walk = walkthrough(explanations)
    assert [step.name for step in walk.views[0].steps] == ["out", "b2", "w2", "l2", "l1", "b1", "w1"]
    assert [view.depth for view in walk.views] == [1, 2]
    assert all(step.state == "ok" for view in walk.views for step in view.steps)


def test_the_page_holds_the_terminal_text(net, page):
    _, explanations = net

    class Preformatted(HTMLParser):
        inside, texts = False, ()

        def handle_starttag(self, tag, attrs):
            if tag == "pre":
                self.inside, self.texts = True, (*self.texts, "")

        def handle_endtag(self, tag):
            self.inside = self.inside and tag != "pre"

        def handle_data(self, data):
            if self.inside:
                self.texts = (*self.texts[:-1], self.texts[-1] + data)

    parser = Preformatted()
    parser.feed(page)
    assert list(parser.texts) == [str(e) for e in explanations]


def test_the_copied_code_runs_and_asserts(net):
    variables, explanations = net
    for view in walkthrough(explanations).views:
        for step in view.steps:
            exec(step.code, dict(variables))
    last = walkthrough(explanations).views[0].steps[-1].code
    assert "w1_g = x.mT @ l1_g" in last
    with pytest.raises(AssertionError):
        exec(last.replace("x.mT", "(1.01 * x.mT)"), dict(variables))


def test_each_step_knows_its_lines(net):
    _, explanations = net
    shallow, deep = walkthrough(explanations).views
    lines = {step.name: sorted((line, here) for _, line, here in step.lines) for step in shallow.steps}
    assert lines["w1"] == [(13, False), (24, True)]
    assert lines["out"] == [(21, False), (27, True)]
    assert (13, True) in [(line, here) for _, line, here in deep.steps[-1].lines]
    assert (24, False) in [(line, here) for _, line, here in deep.steps[-1].lines]


def test_an_entry_that_was_asked_for_comes_first(net):
    variables, _ = net
    e = cr.explain(variables["loss"], wrt=variables["w1"], at=(3, 7))
    entries = walkthrough([e]).views[0].steps[-1].entries
    assert next(iter(entries)) == "3,7"
    assert entries["3,7"]["value"] == pytest.approx(float(e.value[3, 7]))


EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def test_what_comes_from_the_program_is_escaped(tmp_path, opened):
    script = tmp_path / "evil<b>.py"
    script.write_text(
        "import chainrule as cr\n"
        "w = cr.ones(3, requires_grad=True)\n"
        f"loss = (w * 2).sum()  # {EVIL} </script><!--\n"
        "loss.backward()\n"
    )
    variables = run_script(script).results
    explanation = cr.explain(variables["loss"], wrt=variables["w"])
    explanation.derivation.names_used.add(EVIL)
    content = html.page([explanation], title=EVIL)
    assert EVIL not in content
    assert content.count("</script>") == 3  # the data, KaTeX, the page's own
    tab = opened(content)
    assert tab.title() == EVIL
    assert tab.locator("img").count() == 0
    assert EVIL in tab.locator(".program").inner_text()
    assert EVIL not in html.explanation(explanation)


def test_what_is_embedded_survives_any_text_and_any_number():
    text = html._embedded(
        {"a": EVIL + "\u2028</script>", "b": float("nan"), "c": np.float32(0.5), "d": [float("inf"), 3]}
    )
    assert "<" not in text
    assert ">" not in text
    assert json.loads(text) == {"a": EVIL + "\u2028</script>", "b": "nan", "c": 0.5, "d": ["inf", 3]}


def test_a_gradient_that_is_not_finite_has_a_page(opened):
    x = cr.tensor([0.0, 1.0], requires_grad=True)
    loss = x.sqrt().sqrt().sum()
    tab = opened(html.page([cr.explain(loss, wrt=x)]))
    assert "inf" in tab.locator(".card").inner_text() + tab.locator(".ledger").inner_text()


# --- written whole or not at all


def test_writing_makes_folders_and_replaces_whole(tmp_path):
    path = tmp_path / "a" / "b" / "page.html"
    html.write_page(path, "one é")
    html.write_page(path, "two")
    assert path.read_text(encoding="utf-8") == "two"
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_a_failed_write_leaves_the_old_page(tmp_path):
    path = tmp_path / "page.html"
    html.write_page(path, "old")
    with pytest.raises(UnicodeEncodeError):
        html.write_page(path, "new \ud800")
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


# --- arrays as pictures


def test_a_small_array_keeps_every_entry():
    array = np.arange(-3.0, 3.0).reshape(2, 3)
    picture = heat(array)
    assert not picture.pooled
    np.testing.assert_array_equal(picture.cells, array)
    assert picture.largest == 3.0


def test_a_large_array_keeps_its_outliers():
    array = np.zeros((1000, 300))
    array[777, 123] = -5.0
    picture = heat(array)
    assert max(picture.cells.shape) <= 64
    assert picture.cells.min() == -5.0
    assert picture.cells[777 // picture.block[0], 123 // picture.block[1]] == -5.0
    assert picture.pooling() == "each cell shows the largest of 16 x 5 entries"


@pytest.mark.parametrize("shape", [(), (1,), (5,), (700,), (700, 1), (0,), (0, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_any_shape_has_a_picture(shape):
    picture = heat(np.ones(shape))
    assert picture.shape == shape
    assert picture.packed() is not None
    assert picture.png().startswith("data:image/png;base64,")


def test_entries_that_are_not_finite_stay_visible():
    array = np.ones((200, 2))
    array[7, 1] = np.nan
    picture = heat(array)
    assert np.isnan(picture.cells).sum() == 1
    assert "not finite" in picture.described()
    assert picture.largest == 1.0


# --- the page in a browser


def counter(tab):
    return tab.locator(".counter").first.inner_text()


def test_keys_buttons_and_slider_move_the_link(page, opened):
    tab = opened(page)
    assert counter(tab) == "1 / 7"
    assert tab.locator(".card h2").inner_text() == "out.g"
    assert tab.locator(".line.here").inner_text().strip().endswith("loss = mse(out, y)")
    for _ in range(6):
        tab.keyboard.press("n")
    assert counter(tab) == "7 / 7"
    assert tab.locator(".card h2").inner_text() == "w1.g"
    assert tab.locator(".line.here").get_attribute("aria-current") == "true"
    assert tab.locator(".line.here").inner_text().strip().endswith("l1 = lin(x, w1, b1)")
    assert tab.locator(".ledger li:not(.ahead)").count() == 7
    tab.keyboard.press("n")
    assert counter(tab) == "7 / 7"
    tab.keyboard.press("p")
    assert counter(tab) == "6 / 7"
    tab.locator(".controls .next").click()
    assert tab.locator(".controls .next").is_disabled()
    tab.locator(".controls input").fill("3")
    assert tab.locator(".card h2").inner_text() == "w2.g"
    assert tab.locator(".ledger li:not(.ahead)").count() == 3
    tab.locator("tr[data-step='3'] a").click()
    assert tab.locator(".card h2").inner_text() == "l2.g"


def test_the_formula_is_typeset(page, opened):
    tab = opened(page)
    assert tab.locator(".card .formula .katex-html").count() == 1
    assert tab.locator(".katex-error").count() == 0
    assert tab.evaluate("document.fonts.check('16px KaTeX_Math')")
    for _ in range(6):
        tab.keyboard.press("n")
        assert tab.locator(".katex-error").count() == 0


def test_depth_two_opens_the_functions(page, opened):
    tab = opened(page)
    for _ in range(3):
        tab.keyboard.press("n")
    assert tab.locator(".card h2").inner_text() == "l2.g"
    tab.locator(".depth button").last.click()
    assert tab.locator(".card h2").inner_text() == "l2.g"
    assert int(counter(tab).split("/")[1]) > 7
    assert tab.locator(".depth button").last.get_attribute("aria-pressed") == "true"
    assert tab.locator(".line.here").inner_text().strip().endswith("return x @ w + b")
    assert re.search(r"^forward\s+\w+ = l2 @ w2$", tab.locator(".card .forward").inner_text())


def test_a_cell_of_the_gradient_opens_its_entry(page, opened, net):
    _, explanations = net
    tab = opened(page)
    for _ in range(6):
        tab.keyboard.press("n")
    tab.locator(".picks button").nth(2).click()
    index = tab.locator(".picks button[aria-pressed=true]").inner_text()
    i, j = map(int, index.strip("[]").split(","))
    value = float(explanations[0].value[i, j])
    assert f"w1.grad[{i},{j}] = {value:.5g}"[:-1] in tab.locator(".entry").inner_text()
    canvas = tab.locator(".gradient canvas").first
    box = canvas.bounding_box()
    # An entry that the page does not hold: how to ask for it is said.
    canvas.click(position={"x": 2, "y": 2})
    assert "cr.explain(loss, wrt='w1', at=(" in tab.locator(".entry").inner_text()
    assert "is not opened on this page" in tab.locator(".picked").inner_text()
    # The largest entry, by a click on its place in the picture.
    i, j = np.unravel_index(np.abs(explanations[0].value).argmax(), (100, 50))
    canvas.click(position={"x": (j + 0.5) / 50 * box["width"], "y": (i + 0.5) / 100 * box["height"]})
    assert f"w1.grad[{i},{j}]" in tab.locator(".entry").inner_text()
    assert tab.locator(".picked").inner_text().startswith("Opened: ")


def test_the_page_says_what_its_words_mean(page, opened):
    said = opened(page).locator(".legend").inner_text()
    assert all(word in said for word in ("w.g", "Norm", "Gain", "ok 4e-08"))


def test_the_code_is_copied(page, opened):
    tab = opened(page)
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.locator(".copy").click()
    tab.locator(".python [role=status]:not(:empty)").wait_for()
    assert "while its tensors are as they were" in tab.locator(".python [role=status]").inner_text()
    assert "assert np.allclose(out_g" in tab.evaluate("navigator.clipboard.readText()")


def luminance(tab, property_):
    colour = tab.evaluate(f"getComputedStyle(document.documentElement).{property_}")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_follows_the_colour_scheme(page, opened, width, scheme):
    tab = opened(page, width=width, scheme=scheme)
    background, ink = luminance(tab, "backgroundColor"), luminance(tab, "color")
    assert (background > 200 and ink < 80) if scheme == "light" else (background < 60 and ink > 180)
    tab.locator("details.text summary").click()
    for _ in range(7):
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        tab.keyboard.press("n")


def test_the_page_can_be_read_without_seeing_it(page, opened):
    tab = opened(page)
    assert tab.locator("main").count() == 1
    assert tab.locator("h1").count() == 1
    unnamed = """[...document.querySelectorAll("button, input, canvas, [role=img], [role=group], section, aside")]
        .filter(e => !e.closest("[aria-hidden=true]"))
        .filter(e => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim()))
        .map(e => e.outerHTML.slice(0, 120))"""
    for _ in range(7):
        assert tab.evaluate(unnamed) == []
        tab.keyboard.press("n")
    tab.keyboard.press("Tab")
    assert "skip" in tab.evaluate("document.activeElement.className")


def test_several_runs_are_tabs(net, opened):
    _, explanations = net
    chapters = [html.Chapter("First", explanations[:1]), html.Chapter("Second", explanations[2:], facts={"R²": "0.5"})]
    tab = opened(html.book(chapters, "Two runs"))
    assert tab.locator(".chapter:visible").count() == 1
    tab.locator("[role=tab]").first.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("[role=tab][aria-selected=true]").inner_text() == "Second"
    assert "0.5" in tab.locator(".chapter:visible .facts").inner_text()
    tab.keyboard.press("n")
    assert tab.locator(".chapter:visible .counter").inner_text().startswith("2 /")


# --- the notebook


def test_a_notebook_shows_a_fragment_that_touches_nothing_else(net, opened):
    variables, explanations = net
    fragment = explanations[0]._repr_html_()
    assert "<script" not in fragment
    assert " id=" not in fragment
    styles = re.search(r"<style>(.*?)</style>", fragment, re.DOTALL).group(1)
    assert all(
        part.strip().startswith(".chainrule-explanation")
        for rule in styles.split("}")[:-1]
        for part in rule.split("{")[0].split(",")
    )
    again = cr.explain(variables["loss"], wrt=variables["w1"], at=(3, 7))._repr_html_()
    assert "w1.grad[3,7]" in again
    tab = opened(f"<!doctype html><meta charset=utf-8><body>{fragment}{again}")
    assert tab.locator(".chainrule-explanation").count() == 2
    assert tab.locator("table tbody tr").count() == 4
    assert tab.evaluate("[...document.images].every(i => i.naturalWidth > 0 && i.alt)")


# --- other nets


def test_a_value_used_twice_a_module_and_a_classifier_have_pages(opened):
    cr.manual_seed(0)
    model = cr.nn.Sequential(cr.nn.Linear(4, 6), cr.nn.ReLU(), cr.nn.Linear(6, 3))
    x, y = cr.randn(8, 4), cr.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    scale = cr.ones(4, requires_grad=True)
    loss = cr.nn.functional.cross_entropy(model(x * scale) * scale.sum(), y)
    explanations = [cr.explain(loss, wrt=p) for p in (*model.parameters(), scale)]
    tab = opened(html.page(explanations))
    for _ in range(int(counter(tab).split("/")[1])):
        assert tab.locator(".katex-error").count() == 0
        tab.keyboard.press("n")
    last = {step.name: step for step in walkthrough(explanations).views[0].steps}
    assert last["scale"].state == "ok"


def test_many_links_stay_within_the_budget():
    cr.manual_seed(0)
    x = cr.randn(64, 64)
    weights = [(cr.randn(64, 64) / 8).requires_grad_() for _ in range(40)]
    h = x
    for w in weights:
        h = (h @ w).tanh()
    loss = h.pow(2).mean()
    content = html.page([cr.explain(loss, wrt=w) for w in (weights[0], weights[-1])])
    assert len(content.encode()) < 1_600_000
