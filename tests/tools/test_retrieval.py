"""Retrieval scores against lists done in one's head, naive loops and every tie order of small rankings."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from dhn import compiled
from dhn.scoring import kernels, retrieval

PUBLISHED = ["dhn-caffe", "hash-caffe", "hashnet", "deephash-pytorch"]


def ap(order, top, over=0):
    """AP of relevances in ranking order, as a loop; None without a hit in the top."""
    hits = total = 0
    for rank, hit in enumerate(order[:top], 1):
        if hit:
            hits += 1
            total += hits / rank
    return total / (over or hits) if hits else None


def statistics(groups, top, over=0):
    """AP statistics of a ranking given as lists of relevances, one a tie group."""
    row = np.full(6, np.nan)
    relevance = np.array([hit for group in groups for hit in group], np.uint8)
    ends = np.cumsum([len(group) for group in groups])
    kernels.ap_over_ties(relevance, ends, top, over, kernels.harmonic_table(len(relevance)), row)
    return row


def tie_orders(groups):
    """Every ranking that the tie groups allow, each as likely as it should be."""
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield [hit for part in parts for hit in part]


def random_groups(rng, most=3, longest=5):
    return [rng.integers(0, 2, rng.integers(1, longest + 1)).tolist() for _ in range(rng.integers(1, most + 1))]


def codes(rng, n, bits, labels, saturated=False):
    """Real codes that follow their labels, so that rankings are neither random nor perfect."""
    y = (rng.random((n, labels)) < 1.5 / labels).astype(np.uint8)
    basis = np.random.RandomState(7).standard_normal((labels, bits))
    z = np.tanh(y @ basis + rng.standard_normal((n, bits)))
    return (np.sign(z) if saturated else z).astype(np.float32), y


@pytest.mark.parametrize(
    ("order", "top", "expected"),
    [
        ([1, 1, 1], 3, 1.0),
        ([0, 1], 2, 1 / 2),
        ([1, 0, 1], 3, (1 + 2 / 3) / 2),
        ([0, 0, 1, 1], 4, (1 / 3 + 2 / 4) / 2),
        ([1, 0, 1], 2, 1.0),  # the second hit is beyond R and does not enter the denominator
        ([0, 0, 1], 2, 0.0),
    ],
)
def test_ap_of_rankings_without_ties(order, top, expected, way):
    row = statistics([[hit] for hit in order], top)
    for column in (kernels.STABLE, kernels.EXPECTED, kernels.LOW, kernels.HIGH):
        assert row[column] == pytest.approx(expected, abs=1e-15)
    assert row[kernels.CHANCE] == (expected > 0)


def test_ap_of_one_tie_group_by_hand(way):
    # One relevant item among two that tie: AP is 1 or 1/2, each with chance 1/2.
    row = statistics([[0, 1]], 2)
    assert row == pytest.approx([1 / 2, 3 / 4, 1 / 2, 1, 1, 0])
    # Cut at R = 1 the order decides whether there is a hit at all.
    row = statistics([[0, 1]], 1)
    assert row == pytest.approx([0, 1 / 2, 1, 1, 1 / 2, 1])


@pytest.mark.parametrize("over", [0, 4])
def test_statistics_are_those_of_all_tie_orders(over, way):
    rng = np.random.default_rng(over)
    for _ in range(150):
        groups = random_groups(rng)
        while np.prod([float(np.prod(range(1, len(g) + 1))) for g in groups]) > 5000:
            groups = random_groups(rng)
        length = sum(map(len, groups))
        top = int(rng.integers(1, length + 1))
        every = [ap(order, top, over) for order in tie_orders(groups)]
        some = [value for value in every if value is not None]
        row = statistics(groups, top, over)
        first = ap([hit for group in groups for hit in group], top, over)
        assert row[kernels.STABLE] == pytest.approx(first or 0, abs=1e-12)
        assert row[kernels.EXPECTED] == pytest.approx(sum(some) / len(every), abs=1e-12)
        assert row[kernels.CHANCE] == pytest.approx(len(some) / len(every), abs=1e-12)
        assert row[kernels.LOW] == pytest.approx(min(some, default=0), abs=1e-12)
        assert row[kernels.HIGH] == pytest.approx(max(some, default=0), abs=1e-12)
        assert row[kernels.MAY_MISS] == (len(some) < len(every))


def test_expected_ap_of_long_groups_agrees_with_sampled_orders():
    rng = np.random.default_rng(3)
    groups = [(rng.random(n) < share).astype(int).tolist() for n, share in ((40, 0.6), (300, 0.3), (900, 0.1))]
    for top, over in ((700, 0), (700, 200), (1240, 0)):
        sampled = []
        for _ in range(4000):
            order = np.concatenate([rng.permutation(group) for group in groups])[:top]
            hits = np.flatnonzero(order) + 1
            sampled.append((np.arange(1, len(hits) + 1) / hits).sum() / (over or len(hits)))
        error = np.std(sampled) / len(sampled) ** 0.5
        row = statistics(groups, top, over)
        assert abs(row[kernels.EXPECTED] - np.mean(sampled)) < 4 * error
        assert row[kernels.LOW] < min(sampled) and max(sampled) < row[kernels.HIGH]


def test_expected_ap_of_a_large_tied_database_is_exact(way):
    # All items tie: rank i hits with chance m/n and then has 1 + (i - 1)(m - 1)/(n - 1) hits expected.
    n, m = 100_000, 30_000
    relevance = [1] * m + [0] * (n - m)
    i = np.arange(1, n + 1, dtype=np.longdouble)
    exact = float(((1 + (i - 1) * (m - 1) / (n - 1)) / i).mean())
    row = statistics([relevance], n, m)
    assert row[kernels.EXPECTED] == pytest.approx(exact, rel=1e-13)
    assert row[kernels.STABLE] == row[kernels.HIGH] == 1


def test_mean_over_queries_that_may_have_no_hit():
    """Left-out queries make the MAP a ratio: it too is compared with every combination of tie orders."""
    rng = np.random.default_rng(5)
    compared = 0
    while compared < 60:
        queries = [random_groups(rng, most=2, longest=3) for _ in range(rng.integers(1, 4))]
        top = int(rng.integers(1, 4))
        outcomes = [[ap(order, top) for order in tie_orders(groups)] for groups in queries]
        if np.prod([len(each) for each in outcomes]) > 3000:
            continue
        means = [
            np.mean(counted)
            for combination in itertools.product(*outcomes)
            if (counted := [value for value in combination if value is not None])
        ]
        rows = np.array([statistics(groups, top) for groups in queries])
        result = retrieval.mean_over_ties(rows, np.ones(len(queries), int), "out")
        if not means:
            assert result["map"] is result["map_expected"] is result["map_low"] is result["map_high"] is None
            continue
        assert result["map_expected"] == pytest.approx(np.mean(means), abs=1e-12)
        assert result["map_low"] == pytest.approx(min(means), abs=1e-12)
        assert result["map_high"] == pytest.approx(max(means), abs=1e-12)
        compared += 1


def test_expected_mean_over_many_uncertain_queries_agrees_with_sampling():
    rng = np.random.default_rng(6)
    rows = np.zeros((3000, 6))
    rows[:, kernels.CHANCE] = rng.random(3000)
    rows[:, kernels.HIGH] = rng.random(3000)  # AP given a hit
    rows[:, kernels.EXPECTED] = rows[:, kernels.CHANCE] * rows[:, kernels.HIGH]
    rows[:, kernels.MAY_MISS] = 1
    hit = rng.random((2000, 3000)) < rows[:, kernels.CHANCE]
    sampled = (hit @ rows[:, kernels.HIGH]) / hit.sum(1)
    expected = retrieval.mean_over_ties(rows, np.ones(3000), "out")["map_expected"]
    assert abs(expected - sampled.mean()) < 4 * sampled.std() / 2000**0.5


def literal(protocol, q, ql, d, dl, top, kind="stable"):
    """The published scorers' steps in numpy, with a chosen sort."""
    if protocol != "dhn-caffe":
        q, d = np.sign(q), np.sign(d)
    q, d = q.astype(np.float64), d.astype(np.float64)
    aps = []
    for code, label in zip(q, ql, strict=True):
        shared = (dl.astype(int) @ label.astype(int) > 0).astype(int)
        ranking = 0.5 * (d.shape[1] - d @ code) if protocol == "deephash-pytorch" else -(d @ code)
        order = shared[np.argsort(ranking, kind=kind)][0:top]
        if order.sum():
            aps.append(np.mean(np.arange(1, order.sum() + 1) / (np.flatnonzero(order) + 1)))
        elif protocol == "deephash-pytorch" or (protocol == "hashnet" and shared.sum()):
            aps.append(0.0)
    return np.mean(aps)


@pytest.mark.parametrize("protocol", PUBLISHED)
@pytest.mark.parametrize(("bits", "labels", "top"), [(12, 21, 50), (48, 10, 700), (70, 130, 9), (33, 1, 5000)])
def test_published_protocols_are_their_literal_steps(protocol, bits, labels, top):
    rng = np.random.default_rng(bits)
    # Saturated codes for the protocol of real values: its literal sums must not round, or ties would be luck.
    q, ql = codes(rng, 40, bits, labels, saturated=protocol == "dhn-caffe")
    d, dl = codes(rng, 2000, bits, labels, saturated=protocol == "dhn-caffe")
    ql[:3] = 0  # queries without any relevant item
    result = retrieval.score(q, ql, d, dl, protocol, top)
    assert result["map"] == pytest.approx(literal(protocol, q, ql, d, dl, top), abs=1e-12)
    assert result["map_low"] <= result["map"] <= result["map_high"]
    assert result["map_low"] <= result["map_expected"] <= result["map_high"]
    unstable = literal(protocol, q, ql, d, dl, top, kind="quicksort")
    assert result["map_low"] - 1e-12 <= unstable <= result["map_high"] + 1e-12
    assert (result["queries"], result["database"], result["bits"], result["R"]) == (40, 2000, bits, min(top, 2000))


def test_real_codes_are_ranked_by_dot_products():
    rng = np.random.default_rng(1)
    q, ql = codes(rng, 30, 18, 6)
    d, dl = codes(rng, 900, 18, 6)
    result = retrieval.score(q, ql, d, dl, "dhn-caffe", 100)
    assert result["map"] == pytest.approx(literal("dhn-caffe", q, ql, d, dl, 100), abs=1e-12)
    assert result["map_low"] == pytest.approx(result["map_high"], abs=1e-12)  # no ties
    # Equal codes tie to the last bit, wherever they stand in the database.
    labels = np.tile(np.eye(2, 6, dtype=np.uint8), (450, 1))
    result = retrieval.score(q, np.eye(1, 6).repeat(30, 0), d[:1].repeat(900, 0), labels, "dhn-caffe", 900)
    assert result["map_high"] == 1
    assert result["map_low"] == pytest.approx(ap([0] * 450 + [1] * 450, 900), abs=1e-12)


def test_standard_protocol_is_average_precision():
    rng = np.random.default_rng(2)
    q, ql = codes(rng, 25, 16, 5)
    d, dl = codes(rng, 500, 16, 5)
    ql[4] = 0
    for top in (None, 60):
        result = retrieval.score(q, ql, d, dl, "standard", top)
        aps = []
        for code, label in zip(q, ql, strict=True):
            shared = [int(any(a and b for a, b in zip(label, other, strict=True))) for other in dl]
            distance = [sum((a >= 0) != (b >= 0) for a, b in zip(code, other, strict=True)) for other in d]
            order = [shared[i] for i in sorted(range(500), key=lambda i: distance[i])]
            if sum(shared):
                aps.append(ap(order, top or 500, sum(shared)) or 0.0)
        assert result["map"] == pytest.approx(np.mean(aps), abs=1e-12)
        assert result["queries_counted"] == len(aps) < 25
        assert result["queries_without_relevant"] == 25 - len(aps)


def test_queries_without_hits_count_as_each_protocol_says():
    d = np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    dl = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], np.uint8)
    q = np.ones((3, 2), np.float32)
    ql = np.eye(3, dtype=np.uint8)  # a hit in the top 2; one only beyond it; none in the database
    expected = {"dhn-caffe": 1, "hash-caffe": 1, "hashnet": 1 / 2, "deephash-pytorch": 1 / 3, "standard": 1 / 2}
    for protocol, value in expected.items():
        result = retrieval.score(q, ql, d, dl, protocol, 2)
        assert result["map"] == result["map_low"] == result["map_high"] == pytest.approx(value)
        assert (result["queries_without_hits"], result["queries_without_relevant"]) == (2, 1)


def test_top_of_minus_one_drops_the_last_item_in_deephash_pytorch_alone():
    d = np.array([[1, 1], [1, -1], [-1, -1]], np.float32)
    labels = np.array([[1], [0], [1]], np.uint8)
    q = np.ones((1, 2), np.float32)
    result = retrieval.score(q, [[1]], d, labels, "deephash-pytorch", -1)
    assert (result["R"], result["map"]) == (2, 1.0)
    assert retrieval.score(q, [[1]], d, labels, "deephash-pytorch", 3)["map"] == pytest.approx((1 + 2 / 3) / 2)
    with pytest.raises(ValueError, match="R = -1 is not possible with protocol hashnet"):
        retrieval.score(q, [[1]], d, labels, "hashnet", -1)


def test_zero_codes_add_nothing_to_published_rankings_and_are_positive_in_the_standard_one():
    q = np.array([[1, 1]], np.float32)
    d = np.array([[1, -1], [1, 0]], np.float32)  # sign dot products 0 and 1
    labels = np.array([[0], [1]], np.uint8)
    assert retrieval.score(q, [[1]], d, labels, "hash-caffe")["map"] == 1
    d = np.array([[1, 0], [1, 1]], np.float32)  # equal as bits, 1 and 2 as dot products
    assert retrieval.score(q, [[1]], d, labels, "hash-caffe")["map_low"] == 1
    result = retrieval.score(q, [[1]], d, labels, "standard")
    assert (result["map_low"], result["map_expected"], result["map_high"]) == (0.5, 0.75, 1)
    assert json.loads(json.dumps(result)) == result
    assert result["codes"]["database"]["zeros"] == 1


@pytest.mark.parametrize("bits", [5, 64, 70])
def test_codes_with_zeros_rank_by_the_dot_products_of_their_signs(bits):
    random = np.random.default_rng(bits)
    q, d = (random.integers(-1, 2, (count, bits)).astype(np.float32) for count in (9, 400))
    query_labels, labels = (random.integers(0, 2, (count, 3)) for count in (9, 400))
    result = retrieval.score(3 * q, query_labels, 0.1 * d, labels, "hashnet", 50)
    precisions = []
    for code, wanted in zip(q, query_labels, strict=True):
        order = np.argsort(-(d @ code), kind="stable")[:50]
        hits = (labels[order] @ wanted > 0).astype(float)
        if (labels @ wanted > 0).any():
            precisions.append(np.sum(hits * hits.cumsum() / np.arange(1, 51)) / max(hits.sum(), 1))
    assert result["map"] == pytest.approx(np.mean(precisions), abs=1e-12)
    same = retrieval.score(q, query_labels, d, labels, "dhn-caffe", 50)  # dot products of the codes, which are signs
    assert [result[each] for each in ("map_low", "map_expected", "map_high")] == pytest.approx(
        [same[each] for each in ("map_low", "map_expected", "map_high")], abs=1e-12
    )


def test_hamming_radius_and_precision_recall_by_hand(way):
    q = np.array([[1] * 5, [-1] * 5], np.float32)
    d = np.ones((4, 5), np.float32)
    for item, flips in enumerate((0, 2, 2, 3)):
        d[item, :flips] = -1  # distances 0 2 2 3 from the first query, 5 3 3 2 from the second
    labels = np.array([[1], [0], [1], [1]], np.uint8)
    result = retrieval.score(q, [[1], [1]], d, labels, at=(1, 3))
    assert result["precision_radius_2"] == pytest.approx((2 / 3 + 1) / 2)
    assert result["empty_balls"] == 0
    points = {p["radius"]: (p["precision"], p["recall"]) for p in result["precision_recall"]}
    assert points[0] == pytest.approx((1, 1 / 6))
    assert points[2] == pytest.approx((3 / 4, 3 / 6))
    assert points[5] == pytest.approx((6 / 8, 1))
    # In the top 3: 1, 0, 1 for the first query, 1, 0, 1 for the second, whose ranks 2 and 3 tie.
    assert result["precision_at"] == {
        1: {"stable": 1, "expected": 1},
        3: {"stable": pytest.approx(2 / 3), "expected": pytest.approx(2 / 3)},
    }
    alone = retrieval.score(-q[:1], [[1]], d[:1], labels[:1])
    assert (alone["precision_radius_2"], alone["empty_balls"], alone["precision_at"]) == (0, 1, {})
    assert [p["radius"] for p in alone["precision_recall"]] == [5]


def test_precision_at_n_averages_over_ties(way):
    q, d = np.ones((1, 8), np.float32), np.ones((6, 8), np.float32)
    d[0] = -1
    labels = np.array([[1], [1], [0], [0], [0], [1]], np.uint8)  # five tie at distance 0: 1 0 0 0 1, then 1
    found = retrieval.score(q, [[1]], d, labels, at=(2, 6))["precision_at"]
    assert found[2] == {"stable": 1 / 2, "expected": pytest.approx(2 / 5)}
    assert found[6] == {"stable": 1 / 2, "expected": 1 / 2}


def test_code_statistics():
    found = retrieval.code_statistics(np.array([[0.5, -1], [0.5, 1], [0.5, 0], [0.5, -1]], np.float32))
    assert found == {
        "positive_mean": 0.75,
        "positive_least": 0.5,
        "positive_most": 1,
        "mean_abs": pytest.approx(0.625),
        "zeros": 1,
        "distinct": 2,  # 0 counts as +1
    }


@pytest.mark.parametrize("bits", [1, 8, 63, 64, 65, 127, 128])
def test_packed_bits_give_hamming_distances(bits, way):
    rng = np.random.default_rng(bits)
    a, b = rng.integers(0, 2, (2, 7, bits))
    octets = (kernels.pack(each.astype(bool)) for each in (a, b))
    assert np.array_equal(next(octets), np.packbits(a, axis=1).T)
    packed, positive, sums = kernels.pack_signs(b.astype(np.float32) - 0.5)
    assert np.array_equal(packed, next(octets)) and np.array_equal(positive, b.sum(0)[None])
    assert sums.tolist() == [[pytest.approx(7 * bits / 2), 0, 0]]
    ones = np.ones((len(a), 1), np.uint8)
    balls = kernels.rank_by_signs(
        np.packbits(a, axis=1)[:, None],
        packed[None],
        ones,
        ones.T,
        bits,
        3,
        False,
        np.empty(0, np.int64),
        kernels.harmonic_table(len(b)),
    )[2]
    distances = (a[:, None] != b[None]).sum(2)
    assert np.array_equal(balls[:, :, 0], [np.bincount(row, minlength=bits + 1) for row in distances])
    assert np.array_equal(balls[:, :, 0], balls[:, :, 1])


def flat(scores):
    """The numbers of nested scores: the whole ones, and the others."""
    if isinstance(scores, (dict, list)):
        parts = [flat(each) for each in (scores.values() if isinstance(scores, dict) else scores)]
        return [number for whole, _ in parts for number in whole], [number for _, others in parts for number in others]
    return ([], [scores]) if isinstance(scores, float) else ([scores], [])


@pytest.mark.parametrize("bits", [5, 64, 127, 200])
def test_numpy_computes_what_c_does(bits, monkeypatch, capsys):
    """To the bit, of keys of one octet and of two; but for expected values where rank R cuts a tie group: the chances
    of the hits above the cut are products of many factors, which C and numpy take in another order.

    One line says that numpy computes.
    """
    if kernels.LIBRARY is None:
        pytest.skip("kernels.c is not compiled: no C compiler")
    rng = np.random.default_rng(bits)
    few = rng.standard_normal((300, bits))[rng.integers(0, 300, 3000)]
    database = np.where(rng.random(few.shape) < 0.1, 0, few)
    query, labels = rng.standard_normal((9, bits)), rng.random((3009, 4)) < 0.3
    sides = query, labels[3000:], database, labels[:3000]
    cases = [("standard", None), ("hashnet", 50), ("dhn-caffe", 700), ("deephash-pytorch", None), ("standard", 7)]
    by_c = [retrieval.score(*sides, *case) for case in cases]
    monkeypatch.setattr(kernels, "LIBRARY", None)
    monkeypatch.setattr(compiled, "_warned", set())
    by_numpy = [retrieval.score(*sides, *case) for case in cases]
    for case, one, other in zip(cases, by_c, by_numpy, strict=True):
        if case[1] is not None:
            (whole, numbers), (one, others) = flat(one), flat(other)
            assert one == whole and others == pytest.approx(numbers, rel=0, abs=1e-12)
        else:
            assert one == other
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("scoring: expected the library that an installation compiles from ")
    assert line.endswith("about 15 times slower; install a C compiler (gcc), then this package again")


def test_a_library_of_another_source_is_not_loaded(tmp_path):
    source = tmp_path / "kernels.c"
    source.write_text("int f(void) { return 1; }")
    assert compiled.load(source, {}) is None


def in_ball(code, label, database, labels):
    """Relevances of the items within Hamming radius 2, a list a distance, and of all items: loops over all pairs."""
    groups, relevant = [[], [], []], 0
    for other, carried in zip(database, labels, strict=True):
        hit = int(any(a and b for a, b in zip(label, carried, strict=True)))
        distance = sum((a >= 0) != (b >= 0) for a, b in zip(code, other, strict=True))
        relevant += hit
        if distance <= 2:
            groups[distance].append(hit)
    return [group for group in groups if group], relevant


@pytest.mark.parametrize(("bits", "items", "seed"), [(1, 9, 0), (2, 9, 5), (6, 30, 1), (8, 40, 2), (40, 30, 3)])
@pytest.mark.parametrize("protocol", ["standard", "hash-caffe", "dhn-caffe"])
def test_recall_and_map_within_radius_2_are_those_of_a_loop(bits, items, seed, protocol):
    rng = np.random.default_rng(seed)
    database, labels = rng.standard_normal((items, bits)), rng.random((items, 4)) < 0.3
    query, query_labels = rng.standard_normal((12, bits)), rng.random((12, 4)) < 0.3
    query[0], query_labels[1] = database[3], False  # one ball is not empty, one query counts nowhere
    query[2, 0] = 0  # counts as +1
    aps, recalls, over_ties = [], [], []
    for code, label in zip(query, query_labels, strict=True):
        groups, relevant = in_ball(code, label, database, labels)
        if not relevant:
            continue
        order = [hit for group in groups for hit in group]
        recalls.append(sum(order) / relevant)
        aps.append(ap(order, len(order)) or 0.0)
        if np.prod([float(np.prod(range(1, len(group) + 1))) for group in groups]) <= 5000:
            every = [ap(order, len(order)) or 0.0 for order in tie_orders(groups)]
            over_ties.append((np.mean(every), min(every), max(every)))
    # R = 2 is less than what a ball may hold: the ball is measured entirely all the same
    result = retrieval.score(query, query_labels, database, labels, protocol, 2, at=())
    assert 0 < len(aps) < 12
    assert result["recall_radius_2"] == pytest.approx(np.mean(recalls), abs=1e-12)
    assert result["map_radius_2"] == pytest.approx(np.mean(aps), abs=1e-12)
    names = ("map_radius_2_expected", "map_radius_2_low", "map_radius_2_high")
    if len(over_ties) == len(aps):
        assert [result[name] for name in names] == pytest.approx(np.mean(over_ties, axis=0), abs=1e-12)
    assert result[names[1]] - 1e-12 <= result["map_radius_2"] <= result[names[2]] + 1e-12
    assert result[names[1]] <= result[names[0]] <= result[names[2]]


def test_within_radius_2_by_hand(way):
    d = np.ones((5, 4), np.float32)
    for item, flips in enumerate((2, 1, 3, 0, 1)):
        d[item, :flips] = -1  # distances 2 1 3 0 1
    labels = np.array([[1], [0], [1], [1], [1]], np.uint8)
    q = np.ones((2, 4), np.float32)
    q[1] = -1  # distances 2 3 1 4 3: the ball holds items 2 and 0, both relevant
    result = retrieval.score(q, [[1], [1]], d, labels)
    # The first ranking is 1 | 0 1 | 1: AP (1 + 2/3 + 3/4) / 3, or with the tie the other way (1 + 1 + 3/4) / 3.
    low, high = (1 + 2 / 3 + 3 / 4) / 3, (1 + 1 + 3 / 4) / 3
    assert result["recall_radius_2"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert result["map_radius_2"] == result["map_radius_2_low"] == pytest.approx((low + 1) / 2)
    assert result["map_radius_2_high"] == pytest.approx((high + 1) / 2)
    assert result["map_radius_2_expected"] == pytest.approx(((low + high) / 2 + 1) / 2)
    far = retrieval.score(q[1:], [[1]], d[3:4], labels[3:4])
    assert (far["recall_radius_2"], far["map_radius_2"], far["empty_balls"]) == (0, 0, 1)
    none = retrieval.score(q, [[0], [0]], d, labels)
    assert none["recall_radius_2"] is none["map_radius_2"] is none["map_radius_2_expected"] is None


def test_items_of_unknown_labels_are_left_out_and_counted():
    rng = np.random.default_rng(4)
    (q, ql), (d, dl) = codes(rng, 20, 12, 4), codes(rng, 200, 12, 4)
    ql, dl = ql.astype(int), dl.astype(int)
    ql[::5], dl[::3] = -1, -1
    kept = np.arange(20) % 5 > 0, np.arange(200) % 3 > 0
    for protocol in retrieval.PROTOCOLS:
        result = retrieval.score(q, ql, d, dl, protocol)
        assert (result["queries_unlabelled"], result["database_unlabelled"]) == (4, 67)
        assert (result["queries"], result["database"]) == (16, 133)
        alone = retrieval.score(q[kept[0]], ql[kept[0]], d[kept[1]], dl[kept[1]], protocol)
        assert {**result, "queries_unlabelled": 0, "database_unlabelled": 0} == alone
    with pytest.raises(ValueError, match="labels of the query are unknown"):
        retrieval.score(q, np.full_like(ql, -1), d, dl)
    dl[0, 0], dl[0, 1:] = -1, 1
    with pytest.raises(ValueError, match="a row of the database labels holds -1 and others"):
        retrieval.score(q, ql, d, dl)


@pytest.mark.parametrize("bits", [1, 12, 64, 65, 200])
def test_distinct_codes_are_counted(bits):
    rng = np.random.default_rng(bits)
    values = rng.standard_normal((9, bits))
    values = values[np.arange(300) % 9] * rng.random((300, 1))  # of the same signs
    found = retrieval.score(values[:1], [[1]], values, np.ones((300, 1)))["codes"]
    assert found["query"]["distinct"] == 1
    assert found["database"]["distinct"] == len({tuple(row >= 0) for row in values})


def test_collapsed_codes_and_ties_that_decide_are_said():
    rng = np.random.default_rng(0)
    labels, query_labels = np.eye(4)[np.sort(rng.integers(0, 4, 40))], np.eye(4)[rng.integers(0, 4, 10)]
    query = rng.standard_normal((10, 8))
    same = retrieval.score(query, query_labels, np.ones((40, 8)), labels)
    assert same["codes"]["database"]["distinct"] == 1
    assert same["map_high"] - same["map_low"] > 0.5
    assert retrieval.headline(same) == ("map_expected", same["map_expected"])
    assert "all 40 database items have the same code" in same["notes"][0]
    assert f"from {same['map_low']:.3f} to {same['map_high']:.3f}" in same["notes"][1]
    # Three codes for four classes; and, all queries being alike, one ranking for all.
    three = np.array([[1, 1], [1, -1], [-1, 1], [-1, 1]])[labels.argmax(1)].repeat(4, 1)
    notes = retrieval.score(np.ones((10, 8)), query_labels, three, labels)["notes"]
    assert "all 10 queries have the same code" in notes[0]
    assert "40 database items of 4 classes have 3 distinct codes" in notes[1]
    # A code a class is what DHN aims at: nothing to say, though there are but four.
    four = np.eye(4)[labels.argmax(1)].repeat(2, 1) - 0.5
    good = retrieval.score(np.eye(4)[query_labels.argmax(1)].repeat(2, 1) - 0.5, query_labels, four, labels)
    assert good["map"] == 1 and good["notes"] == [] and retrieval.headline(good) == ("map", 1.0)
    nothing = retrieval.score(query, np.zeros((10, 4)), rng.standard_normal((40, 8)), labels)
    assert retrieval.headline(nothing) == ("map", None)
    assert nothing["notes"] == ["no MAP: no query has a relevant item among the ranks that are looked at"]


def test_a_database_sorted_by_class_does_not_give_the_classes_away():
    """A range below WIDE, but ties in database order are lucky: the expected value is quoted."""
    scores = {"protocol": "standard", "bits": 8, "map": 0.75, "map_expected": 0.7, "map_low": 0.65, "map_high": 0.78}
    assert retrieval.headline(scores) == ("map_expected", 0.7)
    assert retrieval.warnings_of(scores) == [
        "standard: the order of ties decides the MAP, from 0.650 to 0.780; quote its expected value over all tie "
        "orders, 0.7000"
    ]
    # as metrics.json of a trained run has them, written before distinct codes were counted
    trained = {**scores, "map": 0.790, "map_expected": 0.789, "map_low": 0.724, "map_high": 0.832}
    assert retrieval.headline(trained) == ("map", 0.790) and retrieval.warnings_of(trained) == []


@pytest.mark.parametrize(("bits", "distinct"), [(16, None), (16, 1), (16, 3), (140, None)])
def test_a_database_of_more_than_a_stretch_is_ranked_whole(bits, distinct):
    """Keys are kept a stretch at a time, and with them the near items so far; all of them where all codes tie."""
    rng = np.random.default_rng(bits)
    items = 2 * kernels.STRETCH + 4321
    database = rng.standard_normal((distinct or items, bits))[np.arange(items) % (distinct or items)]
    database[: kernels.STRETCH, :4] *= -np.sign(database[: kernels.STRETCH, :4])  # the first stretch is farther off
    query, labels = np.abs(rng.standard_normal((3, bits))), rng.random((items, 2)) < 0.3
    found = retrieval.score(query, np.eye(2)[[0, 1, 0]], database, labels, "hash-caffe", 700, at=(1000, items))
    distances = (database < 0).sum(1)
    order = np.argsort(distances, kind="stable")
    hits = labels[order].astype(float)
    ranks = np.arange(1, 701)
    precisions = [(np.cumsum(hits[:700, c]) / ranks * hits[:700, c]).sum() / hits[:700, c].sum() for c in (0, 1, 0)]
    assert found["map"] == pytest.approx(np.mean(precisions), rel=1e-12)
    for n in (1000, items):
        assert found["precision_at"][n]["stable"] == pytest.approx(hits[:n].sum(0)[[0, 1, 0]].mean() / n, rel=1e-12)
    at_radius = {row["radius"]: row["precision"] for row in found["precision_recall"]}
    radius = int(np.median(distances))
    inside = labels[distances <= radius].mean(0)[[0, 1, 0]].mean()
    assert at_radius[radius] == pytest.approx(inside, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "paper"}, "unknown protocol 'paper': expected one of standard, dhn-caffe"),
        ({"top": 0}, "R = 0 is not possible"),
        ({"at": (0, 5)}, "precision at N wants N of at least 1"),
        ({"query_codes": np.ones((2, 9))}, "the query has 9 bits and the database 8"),
        ({"query_labels": np.ones((2, 4))}, "the query has 4 label columns and the database 3"),
        ({"query_labels": np.ones((5, 3))}, "the query has 2 rows of codes and 5 rows of labels"),
        ({"database_codes": np.ones((0, 8))}, r"the database codes have shape \(0, 8\)"),
        (
            {"query_codes": np.ones((2, 16_384)), "database_codes": np.ones((6, 16_384))},
            "codes of 16384 bits: expected at most 16383; are the codes transposed",
        ),
        ({"query_codes": np.full((2, 8), np.nan)}, "2 query codes are not finite, the first in row 0"),
    ],
)
def test_input_that_does_not_fit_is_named(change, message):
    arguments = {
        "query_codes": np.ones((2, 8)),
        "query_labels": np.ones((2, 3)),
        "database_codes": np.ones((6, 8)),
        "database_labels": np.ones((6, 3)),
    }
    with pytest.raises(ValueError, match=message):
        retrieval.score(**{**arguments, **change})
