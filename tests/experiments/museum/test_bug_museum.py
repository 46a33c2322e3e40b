"""The bug museum: each specimen is caught, each fix and each sound model passes."""

import math
import pathlib
import re

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from experiments.lab import generator, seeded
from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.museum import _attention as attention
from experiments.museum import _checks as checks
from experiments.museum import _judges as judges
from experiments.museum import bug_museum
from experiments.museum._cabinet import CABINET
from experiments.museum._files import FILES, decoding, formulas, numbers, padding
from experiments.museum._files import attention as specimens
from seqref.ops.softmax_attention import softmax_attention
from seqref.testing import check_attention

ROOT = pathlib.Path(__file__).parents[3]
SMALL = bug_museum.experiment.small
SOUND = checks.sound()
# What else finds a bug, beside its own test. A change here is a change of a check.
ALSO = {
    "last-column": {"row_order"},
    "sorted-rows": {"padding_invariance"},
    "view-for-transpose": {"causality"},
    "two-ways": {"target_shift"},
    "same-padding": {"target_shift"},
    "reset-each-step": {"nonlinearity"},
    "reset-all-rows": {"row_order"},
    "kept-state": {"causality", "nonlinearity"},
    "random-start": {"causality", "nonlinearity"},
    "dropout-always-on": {"causality", "nonlinearity"},
}
TWO_RESULTS = ("kept-state", "random-start", "dropout-always-on")


@pytest.fixture(scope="module")
def record():
    return measure(find("bug_museum"))


@pytest.mark.parametrize("name", CABINET)
def test_a_specimen_is_caught_by_its_own_test_and_those_listed(name):
    own = CABINET[name].caught_by
    broken, mended = CABINET[name].messages()
    caught = {check for check, message in broken.items() if message}
    assert caught == {own} | ALSO.get(name, set())
    for check in caught - {"own"}:
        assert broken[check].startswith(check.replace("_", " ") + ": ")
    if name in TWO_RESULTS:
        assert "differs between two calls" in broken[own]
    assert mended == dict.fromkeys(broken, "")


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_of_torch_passes_all(name):
    build, trials = SOUND[name]
    assert trials
    assert checks.messages(build, trials) == dict.fromkeys(trials, "")


def test_each_check_has_its_specimen():
    assert {s.caught_by for s in CABINET.values()} == set(bug_museum.CHECKS)
    used = {check for _, trials in SOUND.values() for check in trials}
    assert used == set(bug_museum.CHECKS) - {"own"}


def test_broken_and_mended_differ_in_the_fault_alone():
    """Their weights have the same shapes, except where the fault is in the shapes."""
    other = {
        name
        for name, specimen in CABINET.items()
        for broken, mended in [map(specimen.kind.build, specimen.pair)]
        if isinstance(broken, nn.Module)
        and [p.shape for p in broken.parameters()]
        != [p.shape for p in mended.parameters()]
    }
    assert other == {"two-ways", "no-last-norm"}


BUGS = ROOT / "docs/evidence/bugs"


@pytest.mark.parametrize("name", CABINET)
def test_the_page_has_a_section_for_it(name):
    text = (BUGS / f"{CABINET[name].page}.md").read_text("utf-8")
    assert re.search(rf"^## .+ \{{ #{name} \}}$", text, re.MULTILINE)


def test_every_file_beside_a_page_is_loaded_and_shown_whole():
    """The record rests on what a reader sees: each section of a file is on its page."""
    assert [ROOT / file for file in FILES] == sorted(BUGS.glob("*.py"))
    for file in FILES:
        code = (ROOT / file).read_text("utf-8")
        sections = re.findall(r"^# --8<-- \[start:(\w+)\]$", code, re.MULTILINE)
        page = (ROOT / file).with_suffix(".md").read_text("utf-8")
        assert re.findall(rf'--8<-- "{file}:(\w+)"', page)[0] == "names"
        assert sorted(re.findall(rf'--8<-- "{file}:(\w+)"', page)) == sorted(sections)
        outside = re.sub(
            r"^# --8<-- \[start:(\w+)\]$.*?^# --8<-- \[end:\1\]$",
            "",
            code,
            flags=re.MULTILINE | re.DOTALL,
        )
        assert re.fullmatch(r'r""".+"""', outside.strip())


def test_the_loop_is_the_recurrence():
    a, b = torch.rand(2, 2, 9, generator=generator(0), dtype=torch.float64)
    want = torch.zeros_like(b)
    for t in range(9):
        for s in range(t + 1):
            want[:, t] += a[:, s + 1 : t + 1].prod(1) * b[:, s]
    for scan in (numbers.loop, numbers.by_pairs, numbers.closed_form):
        torch.testing.assert_close(scan(a, b), want, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("time", [1, 2, 3, 7, 8, 9])
def test_the_scan_by_pairs_at_any_length(time):
    a, b = torch.randn(2, 3, time, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(
        numbers.by_pairs(a, b), numbers.loop(a, b), atol=1e-12, rtol=1e-12
    )


def test_where_the_closed_form_breaks():
    """The sum of quotients overflows before the product underflows."""
    ones = torch.ones(1, 200)
    half = torch.full((1, 200), 0.5)
    h = numbers.closed_form(half, ones)[0]
    assert h[:126].isfinite().all()
    assert h[126].isinf()
    assert not h[:149].isnan().any()
    assert h[149:].isnan().all()
    # The page's example: infinities of both signs meet sooner.
    b = torch.randn(1, 200, generator=torch.Generator().manual_seed(0))
    h = numbers.closed_form(half, b)[0]
    assert not h[:128].isnan().any()
    assert h[128:].isnan().all()
    config = SMALL
    broken = bug_museum.scan_error(config, "broken", "float32", 0.5)
    assert 120 < broken["first_not_finite"] < 135
    b = torch.randn(4, 200, generator=generator(0), dtype=torch.float64).float()
    finite = numbers.closed_form(torch.full_like(b, 0.5), b).isfinite().all(dim=0)
    assert finite[: broken["first_not_finite"] - 1].all()
    assert not finite[broken["first_not_finite"] - 1]
    mended = bug_museum.scan_error(config, "mended", "float32", 0.5)
    assert mended["first_not_finite"] == 0
    assert mended["error_before"] < 1e-6


def test_the_reordered_gates_are_those_of_the_judge():
    judge = judges.judge(nn.LSTM)
    layer = judges.imported(formulas.import_reordered)
    for name, weight in judge.state_dict().items():
        assert torch.equal(layer.state_dict()[name], weight)


def test_padding_moves_the_summary_and_packing_keeps_it(record):
    config = SMALL
    assert bug_museum.moved_by_padding(config, "broken", 0, 0) == 0
    with seeded(3), torch.no_grad():
        encoder = padding.Encoder(config.vocab_size, config.hidden_size).double()
        tokens = torch.randint(1, 16, (32, 12), generator=generator(1003))
        one = encoder.gru(encoder.embedding(tokens))[0][:, -1]
        two = encoder.gru(encoder.embedding(nn.functional.pad(tokens, (0, 5))))[0]
    moved = [
        ((b[-1] - a).norm() / a.norm()).item() for a, b in zip(one, two, strict=True)
    ]
    distances = bug_museum.moved_by_padding(config, "broken", 5, 3)
    # The lower of the two middle values, as torch has it.
    assert distances == pytest.approx(sorted(moved)[15], rel=1e-10)
    numbers_ = record["numbers"]
    assert numbers_["moved_broken_5"] > numbers_["moved_broken_1"] > 0.2
    assert numbers_["moved_mended_5"] == 0


def test_the_uniform_guess_is_the_best_on_noise(record):
    uniform = math.log(SMALL.vocab_size)
    assert record["numbers"]["uniform"] == pytest.approx(uniform, abs=1e-5)
    assert record["numbers"]["loss_mended"] == pytest.approx(uniform, abs=0.05)
    assert record["numbers"]["loss_broken"] < 0.1


def test_tables_have_a_row_for_each_case(record):
    tables = find("bug_museum").rendered(record)
    trials = sum(len(specimen.kind.trials) for specimen in CABINET.values())
    assert record["numbers"]["trials"] == trials
    assert tables["matrix"].count("\n") == 2 + len(CABINET)
    for name, specimen in CABINET.items():
        (row,) = re.findall(rf"^\| \[.+#{name}\).+$", tables["matrix"], re.MULTILINE)
        own, *also = [
            "its own test" if check == "own" else check.replace("_", " ")
            for check in (specimen.caught_by, *ALSO.get(name, ()))
        ]
        _, _, by, and_by, passes, _ = (cell.strip() for cell in row.split("|"))
        assert by == f"**{own}**"
        assert sorted(and_by.split(", ")) == sorted(also or [""])
        named = [*also, *filter(None, passes.split(", "))]
        assert len(named) == len(specimen.kind.trials) - 1
    assert tables["sound"].count("| 0 |\n") == len(SOUND)
    assert "not finite from 12" in tables["scans"]


def test_a_kernel_takes_each_weight_for_one_where_all_is_masked():
    """The gradient of the values is what came in: the number of keys times a mean's."""
    for keys in (1, 4, 16):
        row = attention.keyless(3, keys, "finite", 0)
        assert row == {
            "output": pytest.approx(1, rel=1e-5),
            "gradient": pytest.approx(keys, rel=1e-5),
        }
        row = attention.keyless(3, keys, "infinite", 0)
        assert row == {"output": 0, "gradient": 0}


def test_the_slow_kernel_has_the_gradient_of_a_mean(monkeypatch):
    def slow(*args, **kwargs):
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(*args, **kwargs)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", slow)
    row = attention.keyless(3, 16, "finite", 0)
    assert row["gradient"] == pytest.approx(1, rel=1e-5)


def test_what_true_means_to_the_module_and_to_the_function():
    assert attention.where_true(3, 5, "mha", 0)["share"] == 0
    assert attention.where_true(3, 5, "sdpa", 0)["share"] == pytest.approx(1)


def test_weights_that_torch_returns_in_training_are_dropped_ones():
    row = attention.returned(40, 12, "training", 0.5, 0)
    assert row["zeros"] == pytest.approx(0.5, abs=0.05)
    assert row["off"] > 0.1
    row = attention.returned(40, 12, "evaluation", 0.5, 0)
    assert row == {"off": pytest.approx(0, abs=1e-6), "zeros": 0}


def test_the_mended_corner_is_that_of_the_op():
    q, k, v = (torch.randn(2, 1, n, 4, generator=generator(n)) for n in (3, 7, 7))
    seen = specimens.LowerRight(3, 4).seen(3, 7)
    y = scaled_dot_product_attention(q, k, v, attn_mask=seen)
    want = softmax_attention(q, k, v, causal=True, offset=4)
    torch.testing.assert_close(y, want)


@pytest.mark.parametrize("residual", [True, False])
def test_a_triangle_one_step_short_breaks_no_property_in_a_block(residual):
    """As the page says: each token is hidden from itself, at every cut alike.

    Without a path around attention the second token reads nothing of itself.
    """

    class OneShort(specimens.LowerRight):
        def seen(self, queries, keys):
            return torch.ones(queries, keys).tril(keys - queries - 1).bool()

    assert OneShort(3, 4).seen(2, 4).tolist() == [
        [True, True, False, False],
        [True, True, True, False],
    ]
    kind = CABINET["wrong-corner"].kind
    said = checks.messages(lambda: kind.build(OneShort), kind.trials)
    assert said == dict.fromkeys(kind.trials, "")

    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.attend = nn.Embedding(9, 4), OneShort(4, 4)

        def forward(self, tokens):
            x = self.embedding(tokens)
            return self.attend(x)[0] + residual * x

        def predictions_and_labels(self, tokens):
            return self(tokens[:, :-1]), tokens[:, 1:]

    said = checks.messages(Language, checks.language())
    found = {name for name, message in said.items() if message}
    assert found == (set() if residual else {"target_shift"})
    q, k, v = (torch.randn(2, n, 4, generator=generator(n)) for n in (3, 7, 7))
    mask, seen = (kind(3, 4).seen(3, 7) for kind in (OneShort, specimens.LowerRight))

    def attend(q, k, v, _):
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)

    with pytest.raises(AssertionError, match=r"^attention: `output` at "):
        check_attention(attend, q, k, v, seen)


def test_the_judge_of_the_last_norm_takes_a_norm_alone():
    class Shifted(specimens.Normed):
        def into_head(self, tokens):
            return super().into_head(tokens) + 0.1

    judges.normed_before_the_head(specimens.Normed(9, 4))
    with pytest.raises(AssertionError, match="deviations before the head"):
        judges.normed_before_the_head(Shifted(9, 4))


def mixed_modes(model):
    """Each part's mode, where one is frozen in a model that trains."""
    model.train()
    model.gru.eval()
    return judges.modes(model)


def test_decoding_gives_each_part_its_mode_back():
    model, first = decoding.CalmWriter(9, 4), torch.arange(9)
    before = mixed_modes(model)
    assert before == dict(before, **{"": True, "dropout": True, "gru": False})
    model.write(first, 3)
    assert judges.modes(model) == before
    with pytest.raises(IndexError):
        model.write(first + 1, 3)
    assert judges.modes(model) == before


def test_the_judge_of_modes_sees_a_part_set_with_the_whole():
    class SetsAll(decoding.Writer):
        def write(self, first, steps):
            was_training = self.training
            self.eval()
            tokens = super().write(first, steps)
            self.train(was_training)
            return tokens

    with pytest.raises(AssertionError, match="modes of the parts"):
        judges.writes_the_same_twice(SetsAll(9, 4))


class Counted(list):
    """A table that counts how often a row is read."""

    reads = 0

    def __getitem__(self, i):
        self.reads += 1
        return super().__getitem__(i)


def without_bound(log_p, width, max_length):
    """As `sound_search`, all steps."""
    live, done = [((), 0.0)], []
    for _ in range(max_length):
        beams = decoding.best(decoding.grown(live, log_p), width)
        done += [one for one in beams if one[0][-1] == decoding.END]
        live = [one for one in beams if one[0][-1] != decoding.END]
    tokens, _ = chosen = max(done + live, key=decoding.per_token)
    return tokens, decoding.per_token(chosen)


@pytest.mark.parametrize("width", [1, 2, 9, 81])
@pytest.mark.parametrize("max_length", [1, 2, 5])
def test_the_bound_loses_nothing(width, max_length):
    for log_p in judges.chains():
        full = without_bound(log_p, width, max_length)
        assert decoding.sound_search(log_p, width, max_length) == full


@pytest.mark.parametrize("longest", [50, 1000])
def test_the_sound_search_stops_and_the_endless_one_does_not(longest):
    log_p = [[math.log(p) for p in row] for row in [[0.9, 0.05, 0.05]] * 4]

    def rows_read(search, width):
        counted = Counted(log_p)
        assert search(counted, width, longest)[0] == (0,)
        return counted.reads

    # Nothing is left after the end.
    assert rows_read(decoding.sound_search, 1) == 1
    # One live beam, n ln 0.05 after n steps: until that over the longest is ln 0.9.
    steps = math.ceil(longest * math.log(0.9) / math.log(0.05))
    assert rows_read(decoding.sound_search, 2) == steps < longest / 20
    assert rows_read(decoding.endless_search, 1) == longest


@pytest.mark.parametrize("width", [1, 2, 3])
def test_no_search_raises_when_all_beams_have_ended(width):
    """A bug that raises is not one for this museum."""
    for name in ("endless-beam", "dropped-beams", "unequal-sums"):
        for search in CABINET[name].pair:
            for log_p in judges.chains():
                tokens, score = search(log_p, width, 9)
                assert 1 <= len(tokens) <= 9
                assert score < 0


def test_each_search_errs_where_its_page_says():
    """Outputs and scores apart: an endless beam has both wrong, a pool of sums one."""
    wrong = {}
    for name in ("endless-beam", "dropped-beams", "unequal-sums"):
        outputs = scores = 0
        for log_p in judges.chains():
            tokens, score = CABINET[name].pair[0](log_p, 81, judges.LONGEST)
            outputs += tokens != judges.best_by_mean(log_p)[0]
            steps = zip((-1, *tokens), tokens, strict=False)
            own = sum(log_p[i][j] for i, j in steps) / len(tokens)
            scores += not math.isclose(score, own, rel_tol=1e-9)
        wrong[name] = outputs > 0, scores > 0
    assert wrong == {
        "endless-beam": (True, True),
        "dropped-beams": (True, False),
        "unequal-sums": (True, False),
    }
