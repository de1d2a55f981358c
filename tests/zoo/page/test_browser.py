"""The page as people meet it, in a real Chromium."""

import itertools
import json

import pytest
from browser import chromium, complaints, requests, show
from sample import HOSTILE, SCRIPT, crowded_run, large_run, sample_run

from onnxslim_bert.zoo.page.document import RunDocument

pytest.importorskip("altair", reason="needs the extra [report]")
pytest.importorskip("vl_convert", reason="needs the extra [report]")
from onnxslim_bert.zoo.page.page import render

ROWS = "[...document.querySelectorAll('#jobs > tbody > tr[data-job]')].filter((row) => !row.hidden)"
BOXES = """return [...document.querySelectorAll('#figures svg')].map((svg) =>
    [...svg.querySelectorAll('.mark-text text')].map((text) => {
        const { left, top, right, bottom } = text.getBoundingClientRect();
        return [text.textContent, left, top, right, bottom];
    }))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The sample's page."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(RunDocument(sample_run(), "0.5")).html, encoding="utf-8")
    return path


@pytest.fixture
def page(browser, path):
    show(browser, path)
    return browser


def choose(page, index: int) -> None:
    """Choose a model and wait until it is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    name = page.execute_script(f"return document.querySelectorAll('select.model option')[{index}].textContent")
    page.execute_script(
        "delete document.body.dataset.drawn; const select = document.querySelector('select.model');"
        f"select.selectedIndex = {index}; select.dispatchEvent(new Event('change'))"
    )
    WebDriverWait(page, 20).until(
        lambda driver: (driver.execute_script("return document.body.dataset.drawn") or "").startswith(name)
    )


def shown(page, column: int) -> list[str]:
    """The cells of a column in the lines that are to be seen."""
    return page.execute_script(f"return {ROWS}.map((row) => row.cells[{column}]?.textContent.trim() ?? '')")


def test_it_draws_every_job_by_name_and_says_nothing_to_the_console_or_the_network(browser, path):
    for earlier in (requests, complaints):
        earlier(browser)
    show(browser, path)
    for index, name in enumerate(("minilm-l6-sst2", "stsb-cross-encoder", "sentence-embedder", HOSTILE)):
        choose(browser, index)
        names = {text.removesuffix(" ✗") for figure in browser.execute_script(BOXES) for text, *_ in figure}
        made = [row for row in sample_run().rows if row.model == name and row.result]
        assert names >= {"source", "source · cpu", *(f"{row.recipe} · {row.target}" for row in made)}
        marks = browser.execute_script("return document.querySelectorAll('#figures .mark-symbol path').length")
        assert marks == 2 + 2 * len(made) - sum(row.timed is None for row in made)
    assert requests(browser) == [path.as_uri()]
    assert complaints(browser) == []


@pytest.mark.parametrize("width", [1400, 1000, 700, 420])
def test_no_name_overlaps_another_or_is_cut_off(browser, path, width):
    """As the browser itself measures the text, that of the axes, too."""
    show(browser, path, width=width)
    for index in range(4):
        choose(browser, index)
        assert_apart(browser, width)


@pytest.mark.parametrize("width", [1400, 420])
def test_thirty_jobs_that_are_nearly_alike_all_have_names(browser, tmp_path, width):
    path = tmp_path / "crowded.html"
    path.write_text(render(RunDocument(crowded_run())).html, encoding="utf-8")
    show(browser, path, width=width)
    assert_apart(browser, width)
    texts = {text.removesuffix(" ✗") for figure in browser.execute_script(BOXES) for text, *_ in figure}
    assert texts >= {f"{row.recipe} · {row.target}" for row in crowded_run().rows}


def assert_apart(page, width: int) -> None:
    """No two texts of a figure share more than the room between their lines, and the page is as wide as its window."""
    for figure in page.execute_script(BOXES):
        for (one, *a), (other, *b) in itertools.combinations(figure, 2):
            assert not (a[0] < b[2] and b[0] < a[2] and a[1] + 2 < b[3] and b[1] + 2 < a[3]), (one, other)
        assert all(left >= 0 and right <= width for _, left, _, right, _ in figure)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_every_name_is_at_its_point(page):
    """Where a name is far, a line leads to the point; the browser's axes are those that the names were placed by."""
    symbols = page.execute_script(
        "return [...document.querySelectorAll('#figures svg')].map((svg) =>"
        "[...svg.querySelectorAll('.mark-symbol path')].map((path) => {"
        "const box = path.getBoundingClientRect();"
        "const name = path.getAttribute('aria-label').split(':')[0];"
        "return [name, (box.left + box.right) / 2, (box.top + box.bottom) / 2]}))"
    )
    for points, names in zip(symbols, page.execute_script(BOXES), strict=True):
        places = {text.removesuffix(" ✗"): box for text, *box in names}
        for name, x, y in points:
            left, top, right, bottom = places[name]
            assert max(left - x, x - right, 0) < 45, name
            assert max(top - y, y - bottom, 0) < 45, name


def test_columns_sort_both_ways_by_number_and_what_is_missing_comes_last(page):
    latency = "#jobs th[data-column='6'] button"
    page.find_element("css selector", latency).click()
    up = shown(page, 7)
    page.find_element("css selector", latency).click()
    down = shown(page, 7)
    known = [row.timed.latency.median_ms for row in sample_run().rows if row.timed]
    assert up[: len(known)] == [f"{value:.2f}" for value in sorted(known)]
    assert down[: len(known)] == [f"{value:.2f}" for value in sorted(known, reverse=True)]
    sorts = page.execute_script(
        "return [...document.querySelectorAll('#jobs th')].map((th) => th.ariaSort).filter(Boolean)"
    )
    assert sorts == ["descending"]


def test_words_and_choices_filter_together(page):
    words = page.find_element("id", "words")
    words.send_keys("stsb cpu")
    assert set(shown(page, 1)) == {"stsb-cross-encoder"}
    assert len(shown(page, 1)) == 5
    page.execute_script(
        "const pick = document.querySelector('select[data-column=\"3\"]'); pick.value = 'failed';"
        "pick.dispatchEvent(new Event('change'))"
    )
    assert shown(page, 2) == ["tiny"]
    assert "rank 96" in shown(page, 5)[0]
    assert page.find_element("id", "shown").text == "1 of 24 jobs"
    page.find_element("id", "all").click()
    assert len(shown(page, 1)) == 24


def test_details_open_from_the_keyboard_stay_with_their_job_and_close(page):
    from selenium.webdriver.common.keys import Keys

    button = page.find_element("css selector", "#job-5 button")
    button.send_keys(Keys.ENTER)
    below = page.find_element("css selector", "#job-5 + tr.opened")
    assert "719 of 726" in below.text
    assert "What each pass did" in below.text
    assert button.get_attribute("aria-expanded") == "true"
    page.find_element("css selector", "#jobs th[data-column='1'] button").click()
    assert page.find_elements("css selector", "#job-5 + tr.opened")
    page.find_element("id", "words").send_keys("no such job")
    assert not below.is_displayed()
    page.find_element("id", "all").click()
    button.send_keys(Keys.ENTER)
    assert not page.find_elements("css selector", "tr.opened")


def test_a_link_to_a_failure_opens_its_job(page):
    page.find_element("id", "words").send_keys("nothing matches this")
    page.execute_script("document.querySelector('a[data-job]').click()")
    assert page.find_elements("css selector", "tr.opened .job")
    assert len(shown(page, 1)) == 24


def test_hostile_text_is_shown_and_not_run(page):
    choose(page, 3)
    page.execute_script("for (const button of document.querySelectorAll('button.open')) button.click()")
    assert page.execute_script("return document.querySelectorAll('tr.opened').length") == 24
    assert HOSTILE in shown(page, 1)
    assert SCRIPT in page.execute_script("return document.getElementById('jobs').textContent")
    assert page.execute_script("return document.querySelectorAll('img, tr.opened script').length") == 0
    assert page.execute_script("return window.hacked") is None


def test_the_policy_holds_for_scripts_that_would_come_later(page):
    """An oracle for the one above: here the attack is made as HTML, and the browser refuses it."""
    complaints(page)
    page.execute_script(f"document.body.insertAdjacentHTML('beforeend', {json.dumps(HOSTILE)})")
    page.execute_script(
        "const added = document.createElement('script'); added.textContent = 'hacked = 2'; document.body.append(added)"
    )
    assert page.execute_script("return window.hacked") is None
    assert any("Content Security Policy" in message for message in complaints(page))


@pytest.mark.parametrize("switch", ["system", "button"])
def test_dark_changes_the_colours_of_page_and_figures(browser, path, switch):
    """By the system's preference, or by the button, whichever was asked last."""
    show(browser, path)
    browser.execute_script("localStorage.clear()")
    show(browser, path)
    light = colours(browser)
    if switch == "system":
        show(browser, path, dark=True)
    else:
        browser.find_element("id", "theme").click()
    dark = colours(browser)
    browser.execute_script("localStorage.clear()")
    assert brightness(dark[0]) < 90 < 200 < brightness(light[0])
    assert brightness(light[1]) < 90 < 200 < brightness(dark[1])
    assert light[2] != dark[2]


def colours(browser) -> list[str]:
    """Of the page, of a name in a figure, of a point."""
    return browser.execute_script(
        "const style = (at) => getComputedStyle(document.querySelector(at));"
        "return [style('body').backgroundColor, style('#figures .role-mark.mark-text text').fill,"
        "style('#figures .mark-symbol path').stroke]"
    )


def brightness(colour: str) -> float:
    """Of "rgb(1, 2, 3)", the mean, up to 255."""
    return sum(map(float, colour.split("(")[1].rstrip(")").split(",")[:3])) / 3


def test_models_are_chosen_by_arrows_and_from_the_first_table_and_both_choosers_agree(page):
    page.find_element("css selector", "button[data-turn='1']").click()
    chosen = "return [...document.querySelectorAll('select.model')].map((select) => select.value)"
    assert page.execute_script(chosen) == ["stsb-cross-encoder"] * 2
    assert page.find_element("id", "unstudied").text == "Not measured: no calibration rows."
    page.execute_script("document.querySelector('button[data-model=\"2\"]').click()")
    assert page.execute_script(chosen) == ["sentence-embedder"] * 2


def test_three_hundred_models_are_drawn_within_seconds(browser, tmp_path):
    path = tmp_path / "large.html"
    path.write_text(render(RunDocument(large_run())).html, encoding="utf-8")
    show(browser, path)  # gives up after 20 s, on a machine that may be busy
    assert len(shown(browser, 1)) == 1800
    browser.find_element("id", "words").send_keys("model-123 tiny")
    assert shown(browser, 1) == ["team-4/model-123"]
    assert complaints(browser) == []
