"""Rankings from their files to their verdicts, held against the published definitions written out again."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from answering_models import WORDS, classifier, configured, embedder

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.calibration.splitting import holdout, sample
from onnxslim_bert.errors import AccuracyGateError, DataError
from onnxslim_bert.proof.gates import Budgets, enforce
from onnxslim_bert.proof.tasks.neighbours import neighbours_kept
from onnxslim_bert.proof.tasks.ranking import Query, ndcg, recall, reciprocal_rank, relevance
from onnxslim_bert.proof.validate import validate

RNG = np.random.default_rng(5)
TABLE = RNG.normal(size=(WORDS + 1, 1)).astype(np.float32)


def passages(count: int) -> list[str]:
    """Texts of different shares of words, so that no two have one sum or one mean."""
    found: dict[tuple[float, ...], str] = {}
    while len(found) < count:
        words = RNG.integers(0, WORDS, RNG.integers(2, 12))
        found[tuple(np.bincount(words, minlength=WORDS) / len(words))] = " ".join(f"w{word}" for word in words)
    return list(found.values())


def by_hand(scores: dict[str, float], right: dict[str, float]) -> tuple[float, float, float]:
    """nDCG@10, MRR@10 and recall@10 with dictionaries, as trec_eval words them."""
    order = sorted(scores, key=lambda name: -scores[name])[:10]
    gained = sum(right.get(name, 0) / math.log2(place + 1) for place, name in enumerate(order, 1))
    best = sum(value / math.log2(place + 1) for place, value in enumerate(sorted(right.values())[::-1][:10], 1))
    first = next((place for place, name in enumerate(order, 1) if right.get(name, 0) > 0), math.inf)
    relevant = {name for name, value in right.items() if value > 0}
    return gained / best, 1 / first, len(relevant & set(order)) / len(relevant)


@pytest.mark.parametrize("seed", range(20))
def test_measures_are_those_of_the_definition(seed):
    """With graded relevance and lists longer and shorter than 10."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 40))
    scores, grades = rng.permutation(count) / 7, rng.integers(0, 4, count) * (rng.random(count) < 0.4)
    grades[rng.integers(count)] = 2
    query = Query(scores, grades.astype(float))
    names = {str(place): float(score) for place, score in enumerate(scores)}
    right = {str(place): float(grade) for place, grade in enumerate(grades)}
    assert (ndcg(query), reciprocal_rank(query), recall(query)) == pytest.approx(by_hand(names, right))


def test_ties_are_ranked_as_badly_as_they_allow():
    """One number for all is no ranking, whatever the order of the rows."""
    query = Query(np.zeros(20), np.array([1.0] + [0.0] * 19))
    assert (ndcg(query), reciprocal_rank(query), recall(query)) == (0, 0, 0)


def table_of(rows, names=("query", "passage", "label"), sep="\t"):
    return "\n".join([sep.join(names), *(sep.join(map(str, row)) for row in rows)]) + "\n"


def judged_rows(graded: bool = False) -> list[tuple[str, str, int]]:
    """12 queries with 15 passages each, of which those of the largest sums are relevant."""
    texts = passages(12 + 180)
    asked, found = texts[:12], []
    for number, query in enumerate(asked):
        own = texts[12 + 15 * number : 27 + 15 * number]
        sums = {text: total(query) + total(text) for text in own}
        best = sorted(own, key=lambda text: -sums[text])
        found += [(query, text, (2 if text == best[0] else 1 if text in best[:3] else 0)) for text in own]
    return found if graded else [(query, text, int(label > 0)) for query, text, label in found]


def total(text: str) -> float:
    return float(TABLE[[int(word[1:]) + 1 for word in text.split()], 0].sum())


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("columns", [("query", "passage", "label"), ("Query", "Document", "relevance")])
@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "positive negative", "pos neg"])
def test_rows_of_queries_rank(tmp_path, suffix, columns, batch):
    """All forms of file give the same rows; the right model ranks all of them right, its opposite does not."""
    reader, rows = configured(tmp_path, "ForSequenceClassification"), judged_rows()
    path = tmp_path / f"rows.{'jsonl' if suffix.startswith('pos') else suffix}"
    if suffix == "jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(columns, row, strict=True))) for row in rows))
    elif suffix.startswith("pos"):
        positive, negative = suffix.split()
        grouped: dict[str, dict[str, list[str]]] = {}
        for query, passage, label in rows:
            sides = grouped.setdefault(query, {negative: [], positive: []})
            sides[positive if label else negative].append(passage)
        path.write_text("\n".join(json.dumps({"query": query, **sides}) for query, sides in grouped.items()))
    else:
        path.write_text(table_of(rows, columns, {"tsv": "\t", "csv": ","}[suffix]))
    data = load_dataset(str(path), "evaluation")
    assert (data.task, len(data)) == ("reranking", 180)
    base = classifier(tmp_path / "m.onnx", TABLE)
    seen = validate(base, base, data, reader, Budgets(max_drop=50), batch_size=batch).comparison
    assert [score.metric for score in seen.scores] == ["ndcg@10", "mrr@10", "recall@10"]
    assert [score.base.value for score in seen.scores] == pytest.approx([100] * 3)
    assert (seen.fidelity.rank_correlation.value, seen.fidelity.agreement.value) == (100, 100)
    worse = validate(base, classifier(tmp_path / "w.onnx", -TABLE), data, reader, Budgets(max_drop=5, min_agreement=50))
    assert worse.comparison.fidelity.rank_correlation.value == pytest.approx(-100)
    with pytest.raises(AccuracyGateError, match=r"max-drop missed.*min-agreement missed"):
        enforce(worse.verdicts)


@pytest.mark.parametrize("names", [(), ("not relevant", "relevant"), ("relevant", "not_relevant"), ("no", "yes")])
def test_two_logits_rank_by_their_difference(tmp_path, names):
    """Which of both is that of relevant passages is told by their names."""
    reader = configured(tmp_path, "ForSequenceClassification", names)
    path = tmp_path / "rows.tsv"
    path.write_text(table_of(judged_rows(graded=True)))
    sides = [TABLE, -TABLE] if names[:1] == ("relevant",) else [-TABLE, TABLE]
    base = classifier(tmp_path / "m.onnx", np.hstack(sides))
    seen = validate(base, base, load_dataset(str(path), "evaluation"), reader).comparison
    assert (seen.kind, [score.base.value for score in seen.scores]) == ("score", pytest.approx([100] * 3))


def test_the_relevant_logit_is_told_by_its_name():
    """The second, unless that is called the opposite."""
    logits = np.array([[1.0, 3.0]])
    assert relevance(logits, ("a", "b"))[0, 0] == relevance(logits, ())[0, 0] == 2
    assert relevance(logits, ("entailment", "not_entailment"))[0, 0] == -2


def beir(folder, header="query-id\tcorpus-id\tscore", sep="\t", trec=False, titles=True):
    """8 queries, 40 passages, with two relevant ones of different grades each, for an embedder of words."""
    texts = passages(48)
    asked, found = texts[:8], texts[8:]
    (folder / "qrels").mkdir(parents=True)
    (folder / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"q{n}", "text": t}) for n, t in enumerate(asked))
    )
    lines = [
        {
            "_id": f"d{n}",
            **({"title": t.split()[0]} if titles else {}),
            "text": " ".join(t.split()[1:]) if titles else t,
        }
        for n, t in enumerate(found)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    right = {f"q{n}": {f"d{n}": 2, f"d{n + 8}": 1, f"d{n + 16}": 0} for n in range(8)}
    rows = [(q, *(["0"] if trec else []), d, grade) for q, own in right.items() for d, grade in own.items()]
    body = [sep.join(map(str, row)) for row in rows]
    (folder / "qrels" / "test.tsv").write_text("\n".join([*([header] if header else []), *body]) + "\n")
    return asked, found, right


@pytest.mark.parametrize(
    ("header", "sep", "trec", "titles"),
    [("query-id\tcorpus-id\tscore", "\t", False, True), ("", "\t", False, False), ("", " ", True, True)],
)
def test_folders_are_retrieved_from(tmp_path, header, sep, trec, titles):
    """Every query finds among all passages; the measures are those of dictionaries of cosines."""
    asked, found, right = beir(tmp_path / "set", header, sep, trec, titles)
    reader = configured(tmp_path, "Model")
    table = RNG.normal(size=(WORDS + 1, 5)).astype(np.float32)
    data = load_dataset(str(tmp_path / "set"), "evaluation")
    assert (data.name, data.split, len(data.pool)) == ("set", "test", 40)
    base = embedder(tmp_path / "m.onnx", table)
    seen = validate(base, base, data, reader, Budgets(max_drop=50, min_cosine=0.9), batch_size=4).comparison

    def vector(text):
        own = table[[int(word[1:]) + 1 for word in text.split()]].mean(axis=0)
        return own / np.linalg.norm(own)

    expected = []
    for number, query in enumerate(asked):
        scores = {f"d{n}": float(vector(query) @ vector(text)) for n, text in enumerate(found)}
        expected.append(by_hand(scores, right[f"q{number}"]))
    assert [score.metric for score in seen.scores] == ["ndcg@10", "mrr@10", "recall@10", "recall@100"]
    assert [s.base.value for s in seen.scores[:3]] == pytest.approx(list(100 * np.mean(expected, axis=0)), abs=1e-3)
    assert (seen.fidelity.neighbours.value, seen.fidelity.rank_correlation.value) == (100, 100)
    noisy = embedder(tmp_path / "n.onnx", RNG.normal(size=table.shape).astype(np.float32))
    worse = validate(base, noisy, data, reader, Budgets(min_cosine=0.99))
    with pytest.raises(AccuracyGateError, match=r"min-cosine missed"):
        enforce(worse.verdicts)


def test_a_query_that_is_a_passage_does_not_find_itself(tmp_path):
    """As in ArguAna: it is nearest to itself, and what answers it comes next."""
    (folder := tmp_path / "set" / "qrels").mkdir(parents=True)
    found = passages(12)
    lines = [json.dumps({"_id": f"d{n}", "text": text}) for n, text in enumerate(found)]
    (tmp_path / "set/corpus.jsonl").write_text("\n".join(lines))
    (tmp_path / "set/queries.jsonl").write_text("\n".join(lines[:3]))
    (folder / "test.tsv").write_text("".join(f"d{n}\td{n + 1}\t1\n" for n in range(3)))
    data = load_dataset(str(tmp_path / "set"), "evaluation")
    assert not any(query == passage for query, passage in data.texts)
    table = RNG.normal(size=(WORDS + 1, 5)).astype(np.float32)
    base = embedder(tmp_path / "m.onnx", table)
    seen = validate(base, base, data, configured(tmp_path, "Model")).comparison
    vectors = np.array([table[[int(word[1:]) + 1 for word in text.split()]].mean(axis=0) for text in found])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranks = []
    for n in range(3):
        cosines = np.delete(vectors @ vectors[n], n)
        ranks.append(1 + (cosines > cosines[n]).sum())  # of passage n + 1, without n
    assert seen.scores[1].base.value == pytest.approx(100 * np.mean([1 / r if r <= 10 else 0 for r in ranks]), abs=1e-3)
    assert seen.fidelity.agreement.value == 100


def test_folders_are_reranked_by_models_of_pairs(tmp_path):
    """A query gets its judged passages and others; sampling and holding back keep its rows together."""
    beir(tmp_path / "set")
    data = load_dataset(str(tmp_path / "set"), "evaluation")
    units = data.units()
    assert (len(data), list(np.bincount(units))) == (len(units), [len(data) // 8] * 8) or len(set(units)) == 8
    some = sample(data, 30, 0)
    whole = {row[0]: sum(each[0] == row[0] for each in data.texts) for row in some.texts}
    assert len(some) == sum(whole.values())
    kept, held = holdout(data, 0.5, 0)
    assert not {row[0] for row in kept.texts} & {row[0] for row in held.texts}
    reader = configured(tmp_path, "ForSequenceClassification")
    seen = validate(base := classifier(tmp_path / "m.onnx", TABLE), base, data, reader).comparison
    assert (seen.rows, [score.metric for score in seen.scores]) == (len(data), ["ndcg@10", "mrr@10", "recall@10"])


def test_triplets(tmp_path):
    """The share of texts that are nearer to the one like them."""
    reader, table = configured(tmp_path, "Model"), np.eye(WORDS + 1, dtype=np.float32)
    rows = [{"anchor": "w0 w1", "positive": "w0 w2", "negative": "w3"}] * 3 + [
        {"anchor": "w0 w1", "positive": "w3", "negative": "w1"}
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = load_dataset(str(path), "evaluation")
    base = embedder(tmp_path / "m.onnx", table)
    seen = validate(base, base, data, reader, Budgets(max_drop=80, min_cosine=1), batch_size=2).comparison
    assert [(score.metric, score.base.value) for score in seen.scores] == [("triplet-accuracy", 75)]
    with pytest.raises(DataError, match="task 'triplets' needs vectors"):
        validate(c := classifier(tmp_path / "c.onnx", TABLE), c, data, replace(reader))


def test_pairs_without_labels_are_retrieved_when_it_is_asked_for(tmp_path):
    """The second text of each pair answers the first one."""
    texts = passages(20)
    path = tmp_path / "pairs.tsv"
    path.write_text(table_of(zip(texts, texts, strict=True), ("query", "passage")))
    data = load_dataset(str(path), "evaluation", task="retrieval")
    base = embedder(tmp_path / "m.onnx", np.eye(WORDS + 1, dtype=np.float32) + 0.1)
    seen = validate(base, base, data, configured(tmp_path, "Model")).comparison
    assert [score.metric for score in seen.scores] == ["ndcg@10", "mrr@10", "recall@10", "recall@100"]
    assert seen.scores[3].base.value == 100
    assert len(data.pool) == 20


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qrels/test.tsv", "q0\td99\t1\n", "line 1: corpus.jsonl has no _id 'd99'"),
        ("qrels/test.tsv", "a\tb\tc\nq0\td0\tmuch\n", "line 2: .*needed a query's id"),
        ("qrels/test.tsv", "a\tb\tc\n", "needed judgements"),
        ("qrels/test.tsv", "q0\td0\tnan\n", "finite number"),
        ("corpus.jsonl", '{"id": "d0", "text": "a"}\n', "needed _id and text"),
        ("queries.jsonl", '{"_id": "q0", "text": 3}\n', "line 1: needed an _id and a text"),
    ],
)
def test_folders_that_do_not_fit_are_refused(tmp_path, file, text, message):
    """With the file, the line and what was needed."""
    beir(tmp_path / "set")
    (tmp_path / "set" / file).write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(str(tmp_path / "set"), "evaluation")


def test_a_folder_without_judgements_is_refused(tmp_path):
    """And names the places looked at."""
    beir(tmp_path / "set")
    (tmp_path / "set" / "qrels" / "test.tsv").unlink()
    with pytest.raises(DataError, match=r"no judgements: needed qrels/test.tsv, qrels/dev.tsv"):
        load_dataset(str(tmp_path / "set"), "evaluation")


def test_neighbours_are_those_of_a_loop():
    """Share of the ten nearest that stay, text by text."""
    base, candidate = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 6))
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (base, candidate)]
    near = [[set(sorted(set(range(40)) - {n}, key=lambda m: -(v[n] @ v[m]))[:10]) for n in range(40)] for v in unit]
    expected = [len(a & b) / 10 for a, b in zip(*near, strict=True)]
    np.testing.assert_allclose(neighbours_kept(base, candidate), expected)
    assert len(neighbours_kept(base[:2], base[:2])) == 0
    assert Dataset("a", "", (("a",),), None, None).units().tolist() == [0]


SENTENCES = {
    "modules.json": [{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}],
    "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
}


def test_the_folder_says_by_what_vectors_are_compared(tmp_path):
    """Long vectors win by dot products, and those of the same direction by cosines."""
    (tmp_path / "1_Pooling").mkdir()
    for name, content in SENTENCES.items():
        (tmp_path / name).write_text(json.dumps(content))
    reader = configured(tmp_path, "Model")
    table = np.zeros((WORDS + 1, 2), np.float32)
    table[1:4] = [[1, 0], [0.5, 0.1], [3, 3]]
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"anchor": "w0", "positive": "w2", "negative": "w1"}))
    base = embedder(tmp_path / "m.onnx", table)
    found = {}
    for said in ("dot", "cosine", None, "euclidean"):
        (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"similarity_fn_name": said}))
        seen = validate(base, base, load_dataset(str(path), "evaluation"), reader).comparison
        found[said] = seen.scores[0].base.value, any("euclidean" in note for note in seen.notes)
    assert found == {"dot": (100, False), "cosine": (0, False), None: (0, False), "euclidean": (0, True)}


@pytest.mark.parametrize(
    ("modules", "pooling", "said"),
    [
        (("Transformer", "Pooling", "Normalize"), True, ()),
        (("Transformer", "Dense"), False, ("pools tokens in no way that is known", "goes on with Dense")),
        (("Transformer", "Pooling", "Dense"), True, ("goes on with Dense",)),
        (("Transformer", "Pooling"), False, ("pools tokens in no way that is known",)),
    ],
)
def test_what_a_folder_does_behind_the_graph_is_told(tmp_path, modules, pooling, said):
    """Late interaction, dense layers and other poolings are not compared as what they are."""
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "modules.json").write_text(json.dumps([{"type": f"a.{kind}"} for kind in modules]))
    chosen = "pooling_mode_mean_tokens" if pooling else "pooling_mode_weightedmean_tokens"
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps({chosen: True}))
    reader = configured(tmp_path, "Model")
    base = embedder(tmp_path / "m.onnx", RNG.normal(size=(WORDS + 1, 4)).astype(np.float32))
    (tmp_path / "t.txt").write_text("w0 w1\nw2\nw3 w4\n")
    notes = validate(base, base, load_dataset(str(tmp_path / "t.txt"), "evaluation"), reader).comparison.notes
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))
