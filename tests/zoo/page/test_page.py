"""The page as a file: whole, small, closed to the network, and what it says of each job."""

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from sample import HOSTILE, SCRIPT, large_run, sample_run

from onnxslim_bert.errors import OutputError
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.zoo.page.details import bars, details
from onnxslim_bert.zoo.page.document import RunDocument
from onnxslim_bert.zoo.page.jobs import NUMBERS, WORDS, lines
from onnxslim_bert.zoo.page.packed import packed
from onnxslim_bert.zoo.page.trades import headline, shortfalls, trades, without_result

pytest.importorskip("altair", reason="needs the extra [report]")
pytest.importorskip("vl_convert", reason="needs the extra [report]")
from onnxslim_bert.zoo.page.page import LIMIT, render


class Reader(HTMLParser):
    """Every element with its attributes, the text outside of scripts, and the scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.texts.append(data)


@pytest.fixture(scope="module")
def html() -> str:
    """The sample's page."""
    return render(RunDocument(sample_run(), "0.5", {"cpu": "Test CPU", "cpus": 2})).html


@pytest.fixture(scope="module")
def page(html) -> Reader:
    return Reader(html)


@pytest.fixture(scope="module")
def data(page) -> dict:
    return unpacked(page)


def unpacked(page: Reader) -> dict:
    """What data.js finds."""
    place = [attributes.get("id") for tag, attributes in page.elements if tag == "script"].index("data")
    return json.loads(gzip.decompress(base64.b64decode(page.scripts[place])))


# the file


def test_the_page_is_small_and_the_same_each_time(html):
    assert len(html.encode()) < LIMIT
    assert html == render(RunDocument(sample_run(), "0.5", {"cpu": "Test CPU", "cpus": 2})).html


def test_nothing_is_loaded_and_the_policy_forbids_it(page):
    """No element names a file or an address, and only the scripts that were written may run, uncompiled."""
    loads = [(tag, name, value) for tag, found in page.elements for name, value in found.items() if name in LOADING]
    assert [load for load in loads if not (load[2] or "").startswith(("#", "data:,"))] == []
    [policy] = [found["content"] for tag, found in page.elements if found.get("http-equiv")]
    assert "default-src 'none'" in policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    running = [script for script, kind in zip(page.scripts, _kinds(page), strict=True) if kind is None]
    assert rules["script-src"].split() == [_hash(script) for script in running]
    assert len(running) == 3


LOADING = ("src", "href", "action", "srcset", "poster", "data", "formaction")


def _kinds(page: Reader) -> list[str | None]:
    return [attributes.get("type") for tag, attributes in page.elements if tag == "script"]


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def test_hostile_names_are_text(page, data):
    """In the page and in the fragments that its script adds."""
    assert any(HOSTILE in text for text in page.texts)
    fragments = Reader("".join([data["rows"], *data["jobs"]]))
    assert any(SCRIPT in text for text in fragments.texts)
    for reader in (page, fragments):
        assert not [tag for tag, _ in reader.elements if tag == "img"]
        assert not [name for _, found in reader.elements for name in found if name.startswith("on")]
    assert fragments.scripts == []


def test_half_a_surrogate_pair_is_no_failure():
    run = sample_run()
    odd = replace(run, zoo="zoo-\ud800.toml", rows=(replace(run.rows[0], message="\udfff"), *run.rows[1:]))
    assert "zoo-?.toml" in render(RunDocument(odd)).html


def test_a_run_that_is_too_large_is_reported_without_what_matters_least(monkeypatch):
    """The limits are those of the pages themselves, one byte less each time."""
    document = RunDocument(sample_run())
    whole = render(document)
    monkeypatch.setattr("onnxslim_bert.zoo.page.page.LIMIT", len(whole.html.encode()))
    less = render(document)
    assert not whole.left_out
    assert "has one sentence of each job" in less.left_out
    assert less.left_out in less.html
    assert len(less.html) < len(whole.html)
    monkeypatch.setattr("onnxslim_bert.zoo.page.page.LIMIT", 900_000)
    with pytest.raises(OutputError, match=r"the report of 24 jobs would be larger than 0.9 MB: choose some"):
        render(document)


def test_three_hundred_models_fit_whole():
    """1,800 jobs, each with its passes and sentences."""
    page = render(RunDocument(large_run()))
    assert len(page.html.encode()) < LIMIT
    assert page.left_out == ""
    assert len(unpacked(Reader(page.html))["jobs"]) == 1800


def test_what_is_packed_comes_back_to_six_digits_and_nan_as_null():
    found = json.loads(gzip.decompress(base64.b64decode(packed({"a": [1.23456789, float("nan")], "b": "é", "c": 7}))))
    assert found == {"a": [1.23457, None], "b": "é", "c": 7}


# what it says


def test_the_headline_counts_jobs_and_budgets(page):
    run = sample_run()
    assert headline(run) == "19 of 24 jobs on 4 models done; 1 budget missed, 1 inconclusive."
    assert without_result(run) == ("Without a result: 1 out of time, 1 failed, 1 out of memory, 1 crashed, 1 waiting.")
    assert headline(run) in page.texts
    free = (replace(row, verdicts=(), budgets=Budgets()) for row in run.rows if row.status == "done")
    unset = replace(run, rows=tuple(free))
    assert headline(unset) == "19 of 19 jobs on 4 models done; no budgets were set."
    failed = tuple(replace(row, verdicts=(), budgets=Budgets(max_drop=1)) for row in run.rows if row.status != "done")
    assert headline(replace(run, rows=failed, interrupted=True)) == (
        "0 of 5 jobs on 3 models done; no budget was held. The run was interrupted."
    )
    assert without_result(unset) == ""


def test_every_job_without_a_result_or_over_budget_is_named_with_its_reason(page):
    found = [(row.model, row.recipe, reason) for row, reason in shortfalls(sample_run())]
    assert len(found) == 6
    assert ("stsb-cross-encoder", "small", "stopped after 1,800 s, its limit") in found
    assert (HOSTILE, "phone", "waiting") in found
    assert [tag for tag, attributes in page.elements if tag == "a" and attributes.get("data-job")] == ["a"] * 6


def test_times_that_are_missing_are_explained(page):
    assert "No times on qnn for 4 models: an emulator ran it" in page.texts


def test_the_table_has_a_line_for_each_job_with_a_key_for_each_column():
    found = lines(trades(sample_run()))
    assert [line.number for line in found] == list(range(24))
    assert {len(line.keys) for line in found} == {len(WORDS) + len(NUMBERS)}
    assert {len(line.numbers) for line in found} == {len(NUMBERS), 0}
    assert [line.reason for line in found if line.outcome == "failed"] == [
        "factorize-embedding: rank 96 is no less than the width 64 of the embedding"
    ]
    first = found[0]
    assert first.keys[:4] == ("minilm-l6-sst2", "int8", "cpu", "done")
    assert first.numbers[0] == f"{first.row.result.output_bytes / 1e6:.2f}"
    assert first.numbers[-2] == "\N{EN DASH}"  # the CPU takes all nodes, and nothing is said of it


def test_the_head_of_the_table_is_a_table_head(page):
    heads = [
        found for tag, found in page.elements if tag == "th" and found.get("scope") == "col" and "data-column" in found
    ]
    assert [found["data-column"] for found in heads] == [str(number) for number in range(len(WORDS) + len(NUMBERS))]


# one job


def test_a_job_says_what_each_pass_did_and_cost(data):
    """Every pass with its count, note, seconds, nodes, bytes and damage; a dash where none was measured."""
    run = sample_run()
    first, *_, last = details(run.rows[0], run.sources[0])["steps"]
    done = run.rows[0].result.steps
    assert (first.step, first.damage, last.step) == ("canonicalize?", "\N{EN DASH}", "skip-mask?")
    assert (last.count, last.note, last.nodes) == (48, "48 places changed", "163")
    assert last.nbytes == f"{done[-1].nbytes / 1e6:.2f}"
    assert last.wide == 100
    assert "quantize-static{method=minmax}" in data["jobs"][0]


def test_bytes_and_milliseconds_are_compared_part_by_part():
    """With their sums; the largest is as wide as its cell."""
    found = bars(
        {"embeddings": 60e6, "head": 0.0, "feed-forward": 30e6}, {"embeddings": 15e6, "feed-forward": 9e6}, 1e6
    )
    assert [(bar.name, bar.before, bar.after) for bar in found] == [
        ("embeddings", "60.00", "15.00"),
        ("feed-forward", "30.00", "9.00"),
        ("all", "90.00", "24.00"),
    ]
    assert [bar.change for bar in found] == ["\N{MINUS SIGN}75 %", "\N{MINUS SIGN}70 %", "\N{MINUS SIGN}73 %"]
    assert found[0].wide == (100, 25)
    assert bars({}, {"embeddings": 1.0}, 1) == []


def test_a_job_shows_its_sentences_with_both_answers(data):
    fragment = Reader(data["jobs"][0])
    texts = "".join(fragment.texts)
    for each in sample_run().rows[0].result.worst:
        assert each.text[0] in texts
    assert "Sentences on which it differs most" in texts


def test_coverage_groups_the_nodes_that_are_left_by_reason(data):
    texts = " ".join("".join(Reader(data["jobs"][5]).texts).split())
    assert "QNNExecutionProvider takes 719 of 726 nodes (99.0 %) in 7 pieces" in texts
    assert "6 Erf: no operator of the HTP backend; mended by canonicalize,fuse{style=standard}" in texts
    assert "and 3 more" in texts
    assert re.search(r"1 Gather: .*no pass mends it", texts)


def test_a_failed_job_shows_its_reason_and_no_empty_tables(data):
    failed = next(line.number for line in lines(trades(sample_run())) if line.outcome == "failed")
    fragment = Reader(data["jobs"][failed])
    assert "rank 96 is no less than" in "".join(fragment.texts)
    assert "table" not in [tag for tag, _ in fragment.elements]


def test_layers_are_drawn_or_their_absence_explained(data):
    models = {model["name"]: model for model in data["models"]}
    layers = models["minilm-l6-sst2"]["layers"]
    assert [layer["layer"] for layer in layers] == list(range(6))
    assert [layer["layer"] for layer in layers if layer["spared"]["worst"]] == [5]
    assert models["stsb-cross-encoder"]["layers"] == []
    assert models["stsb-cross-encoder"]["reason"] == "no calibration rows"
