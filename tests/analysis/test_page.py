"""``report.html``: what it says without a script, and what a person sees and does in a real browser."""

import base64
import hashlib
import json
import re
from html import unescape
from pathlib import Path

import pytest

from analysis.page import write_page
from analysis.page.svg import Scale
from analysis.report import analyse
from analysis.results import load

PARTS = "answer alarms fronts curves reconstructions fields codebooks search trials provenance"
SWEPT = ("estimator", "commitment_weight", "codebook_size")


def written(run: Path, refresh: int = 0) -> str:
    return write_page(load(run), refresh).read_text()


def known(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


@pytest.fixture
def search(make_run):
    """Two estimators, some trials stopped, two configurations with three seeds; one name that would be markup."""
    run = make_run(name="<b>bold</b> & co", swept=SWEPT, trials=14, sampler="random")
    for i in range(10):
        curve = [(0.05 / epoch + 0.001 * i, 20.0 * epoch + 9 * i) for epoch in (1, 2, 3, 4)]
        config = {"estimator": ("rotation", "ste")[i % 2], "commitment_weight": 0.1 * (i + 1), "codebook_size": 512}
        stopped = i in (4, 7)
        key = run.trial(
            curve[: 2 if stopped else 4], "stopped" if stopped else "completed",
            "forecast: 0.8% <script>alert(1)</script>" if stopped else "", **config,
        )  # fmt: skip
        if i == 0:
            run.reconstructions(key)
        if i < 2:
            for seed in (1, 2):
                run.trial([(mse * (1 + 0.01 * seed), p + seed) for mse, p in curve], seed=seed, **config)
    return run.done()


def test_the_parts_come_in_the_order_in_which_they_are_asked_for(search):
    page = written(search)
    parts = re.findall(r'<section id="(\w+)">', page)
    assert parts == PARTS.split()
    assert f"{search}/exports/best_mse.toml --epochs 100" in unescape(page)


def test_nothing_is_asked_of_a_network_and_no_other_script_may_run(search):
    page = written(search)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in unescape(policy)
    assert "unsafe" not in policy
    *_, script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    for content in (script, style):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"sha256-{digest}" in unescape(policy)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert len(script) < 20_000


def test_what_users_wrote_is_text(search):
    page = written(search)
    assert "<b>bold" not in page
    assert "<script>alert" not in page
    assert {trial["why"] for trial in known(page)["trials"]} == {"", "forecast: 0.8% <script>alert(1)</script>"}


def test_each_drawing_has_a_title_a_description_and_its_numbers(search):
    page = written(search)
    figures = re.findall(r"<figure class=\"(?:wide)?\">(.*?)</figure>", page, re.DOTALL)
    assert len(figures) > 8
    for figure in figures:
        if "<img" not in figure:
            assert re.search(r"<title id=[^>]+>[^<]{4,}</title><desc id=[^>]+>[^<]{10,}</desc>", figure)
        if 'id="parallel"' not in figure:  # whose numbers are those of every trial
            assert "<table>" in figure


def test_a_stopped_trial_is_drawn_where_it_stopped_with_its_reason(search):
    page = written(search)
    front = re.search(r'<svg id="front".*?</svg>', page, re.DOTALL)[0]
    stopped = re.findall(r'class="stopped e\d" data-t="(\d+)"', front)
    assert [known(page)["trials"][int(number)]["state"] for number in stopped] == ["stopped early"] * 2


def test_an_unfinished_and_damaged_run_says_what_is_missing(make_run):
    run = make_run(swept=("commitment_weight",))
    run.trial([(0.1, 5)], None, commitment_weight=0.1)
    folder = run.close()
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write('{"event":"epoch", half a li\n')
    page = written(folder, refresh=30)
    assert "1 line of the journal could not be read" in page
    assert "1 trial had not ended when this page was made" in page
    assert "No trial has completed yet" in page
    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in page


def test_a_run_without_any_trial_has_a_page(make_run):
    assert "nothing to compare yet" in written(make_run().close())


def test_where_no_machine_is_recorded_the_device_is_told(make_run):
    run = make_run(tags={"hardware": None})
    run.trial([(0.05, 100.0)], info={"device": "NVIDIA T4"})
    assert lead(written(run.done()), "provenance") == "Commit 1234567, NVIDIA T4."


def test_five_hundred_trials_are_under_five_megabytes(make_run):
    run = make_run(swept=SWEPT, trials=500)
    for i in range(500):
        curve = [(0.05 / epoch + 0.0001 * (i * 7919 % 500), 20.0 * epoch + i * 31 % 400) for epoch in range(1, 5)]
        key = run.trial(curve, commitment_weight=0.1 + 0.01 * i, codebook_size=(256, 512)[i % 2])
        if i < 60:
            run.reconstructions(key)
    assert len(written(run.done())) < 5_000_000


def lead(page: str, part: str) -> str:
    return unescape(re.search(rf'<section id="{part}">.*?<p class="lead">(.*?)</p>', page, re.DOTALL)[1])


def test_an_mse_that_rises_has_not_settled(make_run):
    run = make_run()
    run.trial([(0.03, 90.0), (0.02, 95.0), (0.04, 99.0)])
    assert lead(written(run.done()), "curves").startswith("On the front MSE rose by 100.0 %")


def test_nothing_looks_wrong_is_not_said_of_trials_that_broke_or_of_none(make_run, monkeypatch):
    run = make_run()
    assert "nothing to look at" in lead(written(run.folder), "alarms")
    run.trial([(0.5, 2.0)], "diverged", "loss is not finite")
    run.trial([], "failed", "out of memory", commitment_weight=1.0)
    said = lead(written(run.done()), "alarms")
    assert said.endswith("Of 2 trials 1 diverged and 1 failed; the table has the reasons.")
    assert "Nothing looks wrong" not in said

    def alarms(results):
        raise RuntimeError

    monkeypatch.setattr("analysis.page.build.alarms", alarms)
    assert lead(written(run.folder), "alarms") == "What looks wrong could not be looked for."


def test_a_run_that_was_left_says_how_many_trials_had_not_begun(make_run):
    run = make_run(trials=50)
    run.trial([(0.03, 90.0)])
    assert "49 trials of the plan had not begun" in written(run.close())


@pytest.mark.parametrize(
    ("points", "params", "said"),
    [
        ([(0.02, 100.0), (0.03, 200.0)], {}, "beta 0.1: the lowest MSE. The front has no bend"),
        ([(0.03, 200.0)], {}, "beta 0.1: the only configuration that has completed"),
        ([(0.03, 90.0), (0.02, 100.0)], {}, "beta 0.2: the best in both objectives, so there is no trade-off to make."),
        (
            [(0.02, 100.0), (0.02, 100.0)],
            {},
            "beta 0.1: the best in both objectives, so there is no trade-off to make.",
        ),
        ([(0.02, 100.0), (0.021, 190.0), (0.03, 200.0)], {}, "beta 0.2: where the front bends most"),
        ([(0.02, 100.0), (0.021, 190.0), (0.03, 200.0)], {"objectives": "mse:min"}, "beta 0.1: the lowest MSE. By one"),
    ],
)
def test_the_headline_claims_a_compromise_only_where_there_is_one(make_run, points, params, said):
    run = make_run(**params)
    for number, point in enumerate(points, 1):
        run.trial([point], commitment_weight=number / 10)
    page = written(run.done())
    assert lead(page, "answer").startswith(said)
    assert "an order and not a claim" in lead(page, "answer") or len(points) == 1
    assert ("knee of the front" in page) == ("bends most" in said)


def test_values_that_differ_are_not_shown_as_equal(make_run):
    run = make_run(swept=("decay",))
    for decay in (0.99991, 0.99992):
        run.seeds([0.02, 0.021, 0.022], [100.0, 101.0, 102.0 + 1e5 * (decay - 0.9999)], decay=decay)
    page = written(run.done())
    assert [axis["values"] for axis in known(page)["axes"][:1]] == [["0.99991", "0.99992"]]
    assert {trial["name"] for trial in known(page)["trials"]} == {"decay 0.99991", "decay 0.99992"}
    assert not re.search(r"0\.9999\b", page)


def test_a_table_of_tuning_has_no_infinite_metric(make_run):
    run = make_run(swept=("estimator", "commitment_weight"), trials=12, sampler="random")
    for number in range(12):
        config = {"estimator": ("rotation", "ste")[number % 2], "commitment_weight": 0.12345678901 * (number + 1)}
        whole = number < 4
        curve = [(0.05 + 0.01 * number, 20.0 + number)] * (4 if whole else 1)
        run.trial(curve, "completed" if whole else "stopped", "" if whole else "forecast: 1%", **config)
    page = written(run.done())
    assert 'id="tuning-mse"' in page
    assert not re.search(r">-?inf<", page)
    assert ">0.12345678901<" not in page


def test_a_codebook_with_a_dead_code_is_not_said_to_be_used_whole(make_run):
    run = make_run(trials=2)
    for beta in (0.1, 0.2):
        run.snapshots(run.trial([(0.03, 90.0)], commitment_weight=beta), 0, codes=512, used=511)
    assert lead(written(run.done()), "codebooks") == "The configurations shown use over 99% of their codes."


def test_a_front_too_long_to_be_numbered_is_not_said_to_be(make_run):
    run = make_run(trials=15)
    for number in range(15):
        run.trial([(0.02 + 0.001 * number, 100.0 + number)], commitment_weight=0.1 * (number + 1))
    page = written(run.done())
    assert "Numbers name 12 of the 15 on the front, lowest MSE first." in page
    assert "strong lines: 12 of the 15 on the front" in page


def test_the_report_is_among_what_analysing_leaves(search):
    assert search / "report.html" in analyse(search).paths


def test_ticks_are_round_and_within_the_limits():
    assert [text for _, text in Scale(0.0, 1.0, 0, 100).ticks()] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [text for _, text in Scale(30.0, 1100.0, 0, 100, log=True).ticks()] == ["50", "100", "200", "500", "1,000"]
    assert Scale.over([3.0], 0, 100)(3.0) == pytest.approx(50)


@pytest.fixture
def opened(search, browser):
    """The report of a search from its file, with the network off; whatever its console says is an error."""
    write_page(load(search))
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((search / "report.html").as_uri())
    yield page
    context.close()
    assert said == []


@pytest.mark.service
def test_a_trial_is_marked_everywhere_and_told_in_full(opened):
    opened.locator("#front use.stopped").first.hover(force=True)
    told = opened.locator("#detail").inner_text()
    assert "rotation, beta 0.5" in told
    assert "stopped early: forecast: 0.8% <script>" in told
    assert "epochs" in told
    assert "2 of 4" in told
    assert opened.locator("#parallel .on").count() == 1
    assert opened.locator("#every tr.on").count() == 1


@pytest.mark.service
def test_the_keyboard_goes_from_mark_to_mark(opened):
    marks = opened.locator('#front [role="graphics-symbol"]')
    marks.first.focus()
    first = opened.locator("#detail h2").inner_text()
    opened.keyboard.press("ArrowRight")
    assert opened.locator("#detail h2").inner_text() != first
    opened.keyboard.press("Enter")
    opened.keyboard.press("Escape")
    assert opened.locator("#detail").is_hidden()


@pytest.mark.service
def test_filters_and_order_hold_over_a_refresh(opened):
    box = opened.locator("#parallel rect.brush").nth(1).bounding_box()
    opened.locator("#parallel").scroll_into_view_if_needed()
    box = opened.locator("#parallel rect.brush").nth(1).bounding_box()
    opened.mouse.move(box["x"] + 4, box["y"] + 1)
    opened.mouse.down()
    opened.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2, steps=4)
    opened.mouse.up()
    kept = opened.locator("#count").inner_text()
    assert 0 < int(kept.split()[0]) < 14
    assert opened.locator("#every tbody tr:visible").count() == int(kept.split()[0])
    head = opened.locator("#every thead button", has_text="MSE")
    head.click()
    head.click()
    values = opened.locator("#every tbody tr td.n:nth-child(8)").all_inner_texts()
    opened.reload()
    assert opened.locator("#count").inner_text() == kept
    assert opened.locator("#every tbody tr td.n:nth-child(8)").all_inner_texts() == values
    opened.locator("#clear").click()
    assert opened.locator("#count").inner_text() == "14 of 14 trials"


@pytest.mark.service
def test_a_refresh_with_more_trials_keeps_what_was_asked_for(make_run, browser):
    run = make_run(trials=40)
    for number in range(10):
        run.trial([(0.02 + 0.001 * number, 100.0 + number)], commitment_weight=1 + number / 10)
    written(run.folder)
    page = browser.new_page()
    page.goto((run.folder / "report.html").as_uri())
    page.locator("#by summary").click()
    ends = page.locator("#ranges fieldset").filter(has_text="MSE").locator("input")
    for end, value in enumerate(("0.0215", "0.0245")):
        ends.nth(end).fill(value)
        ends.nth(end).press("Tab")
    page.locator('#front use[data-g="3"]').click(force=True)
    for number in range(4):
        run.trial([(0.05 + 0.01 * number, 300.0 + number)], commitment_weight=0.1 + number / 10)
    written(run.close())
    page.reload()
    assert page.locator("#every tbody tr:visible button").all_inner_texts() == ["2", "3", "4"]
    assert [end.input_value() for end in ends.all()] == ["0.0215", "0.0245"]
    assert page.locator("#detail h2").inner_text() == "beta 1.3, seed 0"
    page.close()


@pytest.mark.service
def test_tab_reaches_a_drawing_whose_first_mark_is_filtered_out(opened):
    stops = opened.locator('#parallel [tabindex="0"]')
    first = stops.get_attribute("data-t")
    opened.locator("#find").fill("ste")
    assert stops.count() == 1
    assert stops.is_visible()
    assert stops.get_attribute("data-t") != first


@pytest.mark.service
def test_print_says_that_it_shows_some_of_the_trials(opened):
    opened.emulate_media(media="print")
    assert opened.locator("#filters").is_hidden()
    opened.emulate_media(media="screen")
    opened.locator("#find").fill("ste")
    opened.emulate_media(media="print")
    assert opened.locator("#count").inner_text() == "7 of 14 trials"
    assert opened.locator("#find").is_hidden()


@pytest.mark.service
def test_shares_and_intervals_are_sorted_as_numbers(opened):
    for name, head in (("found-epochs", "this run found"), ("effects-mse", "95 % interval")):
        table = opened.locator(f"figure:has(#{name}) details")
        table.locator("summary").click()
        table.locator("thead button", has_text=head).click()
        column = table.locator("thead button").all_inner_texts().index(table.get_by_text(head).first.inner_text())
        cells = table.locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts()
        values = [float(re.sub(r"[%[]|, .*", "", cell)) for cell in cells if cell != "–"]
        assert values == sorted(values)
        assert "–" not in cells[: len(values)]


@pytest.mark.service
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(search, browser, scheme):
    from axe_playwright_python.sync_playwright import Axe

    write_page(load(search))
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)  # axe is a script of its own
    page = context.new_page()
    page.goto((search / "report.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = Axe().run(page).response["violations"]
    context.close()
    assert [(one["impact"], one["id"], one["nodes"][0]["html"]) for one in found] == []


@pytest.mark.service
def test_a_phone_scrolls_one_way(search, browser):
    write_page(load(search))
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto((search / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_a_trial_leads_to_its_page_in_mlflow(search):
    key = load(search).trials[0].key
    pages = {key: "https://mlflow.example/#/experiments/1/runs/2", "": "javascript:alert(1)"}
    (search / "mlflow.json").write_text(json.dumps(pages))
    assert known(written(search))["trials"][0]["run"] == pages[key]
    assert "javascript:" not in written(search)


def test_what_follows_from_a_swept_field_is_no_field_of_its_own(make_run):
    run = make_run(swept=("levels",), trials=6)
    for levels in ("8,5,5,5", "8,6,5"):
        for seed in range(3):
            mse = 0.02 + 0.001 * seed + 0.01 * len(levels)
            fsq = {"layer": "fsq", "estimator": "ste", "commitment_weight": 0.0, "levels": levels}
            run.trial([(0.1, 50.0), (mse, 200.0 + seed)], seed=seed, **fsq)
    results = load(run.done())
    assert results.swept == ("levels",)
    assert [group.label for group in results.groups] == ["levels 8,5,5,5", "levels 8,6,5"]


def test_a_damaged_file_of_the_use_of_codes_is_said(search):
    key = load(search).trials[0].key
    (search / "trials" / key / "usage.npy").write_bytes(b"half a fi")
    assert f"The use of codes of trial {key} cannot be shown" in written(search)
