"""The recipe against the package, and what its page says of it."""

import importlib.util
import io
import math
import os
import pathlib
import runpy
import subprocess
import sys
import tracemalloc
from functools import partial

import pytest
import torch

import seqref
from seqref.models import GatedFeedForward, PreNormBlock, Transformer, TransformerLM
from seqref.testing import check_target_shift

FILE = pathlib.Path(__file__).parents[2] / "docs/recipes/cached_language_model.py"
SIZES = {"context": 24, "width": 16, "blocks": 2, "heads": 4, "hidden": 24}
PROMPTS = [[7, 3, 9, 4, 1], [2], [11, 5, 8]]


def load():
    spec = importlib.util.spec_from_file_location("cached_language_model", FILE)
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks for its module there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


recipe = load()


def made(kv_heads=2, dtype=torch.float64, vocab_size=12):
    torch.manual_seed(0)
    config = recipe.Config(vocab_size=vocab_size, kv_heads=kv_heads, **SIZES)
    model = recipe.LanguageModel(config)
    with torch.no_grad():
        # As it begins, a model hardly prefers anything, whatever it has read; and with
        # a large embedding alone, which is the head too, it repeats what it has read.
        for weight in model.parameters():
            weight.mul_(30 if weight.dim() == 2 else torch.rand(len(weight)) + 0.5)
        model.embedding.weight.div_(3)
    return model.to(dtype)


def of_the_package(model):
    """The same weights in the package's classes."""
    config = model.config
    norm = partial(torch.nn.RMSNorm, eps=1e-5)
    blocks = []
    for mine in model.blocks:
        attention = seqref.MultiHeadAttention(
            config.width,
            config.heads,
            n_kv_heads=config.kv_heads,
            bias=False,
            positions=seqref.Rotary(config.head),
        )
        network = GatedFeedForward(config.width, config.hidden)
        block = PreNormBlock(attention, network, norm=norm)
        with torch.no_grad():
            attention.in_proj_weight.copy_(mine.attention.inward.weight)
        attention.out_proj.load_state_dict(mine.attention.outward.state_dict())
        network.load_state_dict(mine.feed_forward.state_dict())
        for name in ("norm_attention", "norm_feed_forward"):
            getattr(block, name).load_state_dict(getattr(mine, name).state_dict())
        blocks.append(block)
    stack = Transformer(blocks, last_norm=norm(config.width))
    stack.last_norm.load_state_dict(model.norm.state_dict())
    theirs = TransformerLM(config.vocab_size, stack)
    theirs.embedding.load_state_dict(model.embedding.state_dict())
    return theirs.to(model.embedding.weight.dtype)


def padded(rows, pad=0):
    longest = max(len(row) for row in rows)
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return tokens, [len(row) for row in rows]


def assert_near(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_logits_equal_the_packages(kv_heads):
    model = made(kv_heads)
    tokens = torch.randint(12, (3, 24))
    logits = model(tokens)
    assert logits.std() > 0.3
    assert_near(logits, of_the_package(model)(tokens)[0])


def test_gradients_equal_the_packages():
    model = made()
    theirs, tokens = of_the_package(model), torch.randint(12, (3, 9))
    recipe.loss_of(model, tokens).backward()
    scores = theirs(tokens[:, :-1])[0].flatten(0, 1)
    torch.nn.functional.cross_entropy(scores, tokens[:, 1:].flatten()).backward()
    ours = [model.embedding.weight, model.blocks[0].attention.inward.weight]
    packages = theirs.embedding.weight, theirs.layer.layers[0].attention.in_proj_weight
    for mine, its in zip(ours, packages, strict=True):
        assert_near(mine.grad, its.grad)


@pytest.mark.parametrize("pad", [0, 11])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_a_cached_step_is_the_whole_at_each_token_of_each_row(kv_heads, pad):
    model = made(kv_heads)
    rows = [list(row) for row in PROMPTS]
    cache = recipe.Cache(model, len(rows), capacity=15)
    memory = cache.memory.data_ptr()
    tokens, lengths = padded(rows, pad)
    logits = model.read(tokens, cache, lengths)
    for step in range(10):
        for row, scores in zip(rows, logits, strict=True):
            assert_near(scores, model(torch.tensor([row]))[0, -1])
        written = torch.randint(12, (len(rows), 1))
        for row, token in zip(rows, written.tolist(), strict=True):
            row += token
        logits = model.read(written, cache)
        assert cache.lengths == [n + step + 1 for n in (5, 1, 3)]
    assert cache.memory.data_ptr() == memory


def test_prompts_may_be_read_in_parts_of_unequal_length():
    model = made()
    whole, cache = torch.randint(1, 12, (2, 7)), recipe.Cache(model, 2, 11)
    first = model.read(whole[:, :3], cache, [3, 1])
    assert_near(first, torch.stack([model(whole)[0, 2], model(whole)[1, 0]]))
    second = torch.stack([whole[0, 3:7], whole[1, 1:5]])
    last = model.read(second, cache, [1, 4])
    assert_near(last, torch.stack([model(whole)[0, 3], model(whole)[1, 4]]))
    assert cache.lengths == [4, 5]


def by_the_whole(model, prompt, new, end=None):
    """What greedy decoding is: no cache, no batch."""
    row = list(prompt)
    for _ in range(new):
        token = model(torch.tensor([row]))[0, -1].argmax().item()
        if token == end:
            break
        row.append(token)
    return row[len(prompt) :]


@pytest.mark.parametrize("kv_heads", [1, 4])
def test_a_batch_writes_what_each_row_writes_alone(kv_heads, device):
    model = made(kv_heads)
    together = recipe.generate(made(kv_heads).to(device), PROMPTS, 12, end=None)
    for prompt, written in zip(PROMPTS, together, strict=True):
        assert written == by_the_whole(model, prompt, 12)
        assert [written] == recipe.generate(model, [prompt], 12, end=None)
    assert len({tuple(written) for written in together}) == 3


def test_a_row_stops_at_its_end_and_the_others_go_on():
    model = made()
    free = [by_the_whole(model, prompt, 12) for prompt in PROMPTS]
    # A token that ends one row, late, and another not at all.
    end = next(t for t in free[0] if any(t not in row for row in free))
    expected = [by_the_whole(model, prompt, 12, end) for prompt in PROMPTS]
    assert min(map(len, expected)) < 12 == max(map(len, expected))
    assert recipe.generate(model, PROMPTS, 12, end=end) == expected


def test_nothing_is_read_twice_or_in_vain(monkeypatch):
    """The prompt once, each token but the last once; and none after all have ended."""
    model, read = made(), []
    inner = recipe.LanguageModel.read

    def counted(self, tokens, *rest):
        read.append(tokens.shape[1])
        return inner(self, tokens, *rest)

    monkeypatch.setattr(recipe.LanguageModel, "read", counted)
    recipe.generate(model, PROMPTS, 4, end=None)
    assert read == [5, 1, 1, 1]
    read.clear()
    assert recipe.generate(model, PROMPTS, 0) == [[], [], []]
    assert read == []
    end = by_the_whole(model, PROMPTS[0], 1)[0]
    recipe.generate(model, PROMPTS[:1], 9, end=end)
    assert read == [5]


def test_draws_follow_the_probabilities():
    torch.manual_seed(0)
    scores, count = torch.randn(1, 6), 20000
    generator = torch.Generator().manual_seed(1)
    for temperature, top_k in ((1.0, None), (0.5, None), (2.0, 3), (1.0, 99)):
        rows = scores.expand(count, -1)
        drawn = recipe.choose(rows, temperature, top_k, generator)
        kept = scores.clone()
        if top_k == 3:
            kept[kept < kept.topk(3).values[0, -1]] = -torch.inf
        expected = (kept / temperature).softmax(1)[0]
        shares = drawn.bincount(minlength=6) / count
        # Five standard deviations of a share.
        assert (shares - expected).abs().max() < 5 * 0.5 / math.sqrt(count)
        assert not shares[kept[0] == -torch.inf].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_small_temperature_is_the_likeliest_token(dtype):
    scores = torch.tensor([[3.0, 5.0, 4.0], [60000.0, 2.0, 1.0]], dtype=dtype)
    for temperature in (0.0, 1e-30):
        assert recipe.choose(scores, temperature, None, None).tolist() == [1, 0]
    assert recipe.choose(scores, 5.0, 1, None).tolist() == [1, 0]


def test_a_seed_repeats_what_was_drawn():
    model = made()

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return recipe.generate(model, PROMPTS, 12, temperature=1.0, generator=generator)

    assert drawn(3) == drawn(3) != drawn(4)


def test_what_is_drawn_depends_on_the_rows_beside_it():
    """Of greedy decoding alone the page says that a batch writes what rows write."""
    model, written = made(), []
    for prompts in (PROMPTS, PROMPTS[1:]):
        options = {"generator": torch.Generator().manual_seed(0), "end": None}
        rows = recipe.generate(model, prompts, 12, temperature=1.0, **options)
        written.append(rows[-2:])
    assert written[0] != written[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model, exact = made(dtype=dtype), made(dtype=dtype).double()
    tokens, lengths = padded(PROMPTS)
    cache = recipe.Cache(model, 3, 20)
    assert cache.memory.dtype == dtype
    scores = model.read(tokens, cache, lengths), model.read(tokens[:, :1], cache)
    for row, prompt in enumerate(PROMPTS):
        whole = exact(torch.tensor([[*prompt, tokens[row, 0].item()]]))[0, -2:]
        for got, expected in zip(scores, whole, strict=True):
            assert got.dtype == dtype
            bound = 16 * torch.finfo(dtype).eps * expected.abs().max()
            assert (got[row].double() - expected).abs().max() < bound
    assert all(len(row) == 6 for row in recipe.generate(model, PROMPTS, 6, end=None))


def test_positions_are_not_rounded_to_half_precision():
    x, positions = torch.ones(1, 1, 2, 4).bfloat16(), torch.tensor([256, 257])
    turned = recipe.rotated(x, positions)
    expected = recipe.rotated(x.double(), positions)
    assert turned.dtype == torch.bfloat16
    assert (turned.double() - expected).abs().max() < 2**-7
    assert not torch.equal(turned[0, 0, 0], turned[0, 0, 1])


def test_autocast():
    model = made(dtype=torch.float32)
    expected = model(torch.tensor([PROMPTS[0]]))[0, -1]
    with torch.autocast("cpu", torch.bfloat16):
        got = model.read(torch.tensor([PROMPTS[0]]), recipe.Cache(model, 1, 9))[0]
        loss = recipe.loss_of(model, torch.randint(12, (2, 9)))
        recipe.generate(model, PROMPTS, 4)
    torch.testing.assert_close(got.float(), expected, rtol=0.1, atol=0.5)
    loss.backward()
    assert model.embedding.weight.grad.isfinite().all()


def test_all_that_it_makes_is_where_the_model_is():
    """Another device is torch's default: a tensor made without one would not mix."""
    model, (tokens, lengths) = made(), padded(PROMPTS)
    expected = recipe.generate(model, PROMPTS, 6), recipe.loss_of(model, tokens)
    with torch.device("meta"):
        model.read(tokens, recipe.Cache(model, 3, 5), lengths)
        got = recipe.generate(model, PROMPTS, 6), recipe.loss_of(model, tokens)
    assert got == expected


def test_a_generator_of_the_cpu_draws_for_any_device(device):
    model = made()

    def drawn():
        generator = torch.Generator().manual_seed(0)
        options = {"temperature": 1.0, "end": None, "generator": generator}
        return recipe.generate(model, PROMPTS, 12, **options)

    expected = drawn()
    model.to(device)
    assert drawn() == expected


# Training.


def text(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("to be or not to be, that is the question: " * 40)
    return file


def test_the_corpus_has_an_end_around_each_document(tmp_path):
    for name, data in (("a", b"xy"), ("b", b""), ("c", bytes(range(250, 256)) * 3)):
        (tmp_path / name).write_bytes(data)
    train, test = recipe.corpus(sorted(tmp_path.iterdir()))
    row = torch.cat([train, test]).tolist()
    high = [*range(250, 256)] * 3
    assert row == [256, 120, 121, 256, 256, *high, 256]
    assert len(test) == len(row) // 10


def test_the_corpus_is_at_no_time_a_list_of_numbers(tmp_path):
    """Which takes eight bytes for each, and more while it grows."""
    file, size = tmp_path / "text", 2**20
    file.write_bytes(bytes(size))
    tracemalloc.start()
    try:
        recipe.corpus([file])
        assert size <= tracemalloc.get_traced_memory()[1] < 4 * size
    finally:
        tracemalloc.stop()


def test_text_to_tokens_and_back():
    assert recipe.encoded("é") == [recipe.END, 0xC3, 0xA9]
    assert recipe.encoded("") == [recipe.END]
    assert recipe.decoded([0xC3, 0xA9, recipe.END, 0xC3]) == "é�"


def test_the_loss_is_of_the_next_token():
    model = made()
    check_target_shift(
        model,
        torch.randint(12, (3, 9)),
        call=lambda model, t: (model(t[:, :-1]), t[:, 1:]),
    )
    tokens = torch.randint(12, (3, 9))
    total = 0.0
    for row in tokens:
        for t in range(8):
            total -= model(row[None, : t + 1])[0, -1].log_softmax(0)[row[t + 1]].item()
    got = recipe.loss_of(model, tokens).item()
    assert math.isclose(got, total / 24, rel_tol=1e-12)


def test_windows_reach_the_ends_of_a_row():
    row = torch.arange(10, dtype=torch.int16)
    got = recipe.windows(row, torch.tensor([0, 6]), 3)
    assert got.tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    model, tokens = made(), torch.randint(12, (25,), dtype=torch.int16)
    whole = recipe.loss_of(model, tokens[None].long()).item()
    assert recipe.evaluate(model, tokens) == whole


@pytest.mark.parametrize(
    ("most", "expected"), [(9, range(7)), (7, range(7)), (4, [0, 2, 4, 6]), (1, [0])]
)
def test_the_loss_is_of_windows_along_the_whole_row(most, expected):
    model, tokens = made(), torch.randint(12, (24 * 7 + 1,))
    pieces = torch.stack([tokens[24 * i : 24 * i + 25] for i in expected])
    got = recipe.evaluate(model, tokens, most)
    assert math.isclose(got, recipe.loss_of(model, pieces).item(), rel_tol=1e-12)


def test_each_weight_begins_as_large_as_it_says():
    config = recipe.Config(**{**SIZES, "width": 64, "hidden": 64, "blocks": 8})
    for name, weight in recipe.LanguageModel(config).named_parameters():
        if weight.dim() == 2:
            # Two terms a block are added. Of 4096 values 5% is four deviations.
            std = 0.02 / 4 if "outward" in name else 0.02
            assert math.isclose(weight.detach().std(), std, rel_tol=0.05), name
        else:
            assert (weight == 1).all()


def begun(seed=0, rate=3e-3):
    torch.manual_seed(seed)
    model = recipe.LanguageModel(recipe.Config(**SIZES))
    return recipe.Training(model, seed, rate)


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def test_training_lowers_the_loss(tmp_path):
    train, test = recipe.corpus([text(tmp_path)])
    run = begun()
    before = recipe.evaluate(run.model, test)
    # As it begins it knows nothing: all bytes are as likely.
    assert abs(before - math.log(257)) < 0.1
    run.run(train, 300, batch=16)
    assert run.update == 300
    # To know how frequent each byte is, and not what stood before, is 2.38 nats.
    shares = train.bincount() / len(train)
    assert torch.special.entr(shares).sum() > 2.3
    assert recipe.evaluate(run.model, test) < 1.5


def test_a_run_that_was_stopped_is_the_run_that_was_not(tmp_path):
    train, _ = recipe.corpus([text(tmp_path)])
    straight, first = begun(rate=1e-2), begun(rate=1e-2)
    straight.run(train, 8)
    first.run(train, 5)
    first.save(tmp_path / "lm.pt")
    torch.manual_seed(99)
    second = recipe.Training.load(tmp_path / "lm.pt")
    assert second.update == 5
    second.run(train, 8)
    assert torch.equal(weights(second), weights(straight))
    assert not torch.equal(weights(first), weights(straight))
    for other in (begun(seed=1, rate=1e-2), begun()):
        other.run(train, 8)
        assert not torch.equal(weights(other), weights(straight))


def test_a_run_goes_on_where_it_is_asked_to(tmp_path):
    train, _ = recipe.corpus([text(tmp_path)])
    run = begun()
    run.run(train, 1)
    run.save(tmp_path / "lm.pt")
    # A device that each machine has.
    moved = recipe.Training.load(tmp_path / "lm.pt", "meta")
    weight = moved.model.embedding.weight
    assert weight.device.type == "meta"
    assert moved.optimizer.state[weight]["exp_avg"].device.type == "meta"
    assert moved.optimizer.param_groups[0]["params"][0] is weight


def test_the_last_update_is_printed_whatever_its_number(tmp_path, capsys):
    train, _ = recipe.corpus([text(tmp_path)])
    begun().run(train, 3)
    printed = capsys.readouterr().out
    assert printed.startswith("update 3: ")
    assert printed.count("\n") == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, run = tmp_path / "lm.pt", begun()
    run.save(path)
    before = path.read_bytes()

    def full_disk(kept, file):
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        run.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["lm.pt"]


@pytest.mark.errors
def test_a_file_is_read_whole_or_not_at_all(tmp_path):
    path, run = tmp_path / "lm.pt", begun()
    run.save(path)
    whole = path.read_bytes()
    for spoilt in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=r"lm\.pt is no checkpoint"):
            recipe.Training.load(path)
    path.write_bytes(whole)
    kept = torch.load(path, weights_only=True)
    del kept["model"]["norm.weight"]
    torch.save(kept, path)
    with pytest.raises(ValueError, match=r"lm\.pt is no checkpoint(?s:.*)norm\.weight"):
        recipe.Training.load(path)
    with pytest.raises(FileNotFoundError):
        recipe.Training.load(tmp_path / "none.pt")


@pytest.mark.errors
def test_a_device_that_is_not_there_is_not_the_files_fault(tmp_path):
    begun().save(tmp_path / "lm.pt")
    with pytest.raises(RuntimeError, match="device type"):
        recipe.Training.load(tmp_path / "lm.pt", "nonsense")


class Harmful:
    """Where it is unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.errors
def test_a_file_runs_no_code(tmp_path):
    path, marker = tmp_path / "lm.pt", tmp_path / "marker"
    torch.save(Harmful(marker), path)
    torch.load(path, weights_only=False)
    assert marker.exists()
    marker.rmdir()
    with pytest.raises(ValueError, match=r"lm\.pt is no checkpoint"):
        recipe.Training.load(path)
    assert not marker.exists()


def without_a_slope(weight):
    """Nothing, with a gradient that is not a number."""
    return (weight - weight.detach()).abs().sqrt().sum()


@pytest.mark.errors
@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (lambda loss, _: loss * math.nan, r"loss nan, norm of its gradient nan"),
        (lambda loss, _: loss + math.inf, r"loss inf, norm of its gradient \d\."),
        (lambda loss, weight: loss + without_a_slope(weight), r"loss \d.*gradient nan"),
    ],
    ids=["both", "loss", "gradient"],
)
def test_a_run_that_diverges_leaves_its_weights(tmp_path, monkeypatch, spoilt, message):
    train, _ = recipe.corpus([text(tmp_path)])
    run, inner = begun(), recipe.loss_of
    run.run(train, 2)
    before = weights(run)

    def loss_of(model, pieces):
        return spoilt(inner(model, pieces), model.norm.weight)

    monkeypatch.setattr(recipe, "loss_of", loss_of)
    with pytest.raises(FloatingPointError, match=f"diverged after update 2: {message}"):
        run.run(train, 3)
    assert run.update == 2
    assert torch.equal(weights(run), before)


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, r"heads=3 must be a multiple of kv_heads"),
        ({"width": 20}, r"width=20 must be a multiple of 2 \* heads"),
        ({"blocks": 0}, r"blocks must be a whole number from 1 on: 0"),
        ({"hidden": 2.5}, r"hidden must be a whole number from 1 on: 2\.5"),
    ],
)
def test_sizes_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        recipe.Config(**{**SIZES, **change})


@pytest.mark.errors
@pytest.mark.parametrize(
    ("prompts", "new", "options", "message"),
    [
        ([], 3, {}, r"a prompt, and `new` from 0 on: 0, 3"),
        ([[1]], -1, {}, r"a prompt, and `new` from 0 on: 1, -1"),
        ([[1], []], 3, {}, r"prompt 1 is empty"),
        ([[1], [12]], 3, {}, r"prompt 1 has a token outside the vocabulary"),
        ([[-1]], 3, {}, r"prompt 0 has a token outside the vocabulary"),
        ([[1] * 5, [1]], 20, {}, r"prompt 0 has 5 tokens; with 20 more .*context=24"),
        ([[1]], 3, {"temperature": -1.0}, r"temperature from 0, .* on: -1\.0"),
        ([[1]], 3, {"temperature": math.nan}, r"temperature from 0, .* on: nan"),
        ([[1]], 3, {"top_k": 0}, r"top_k from 1 on: .*, 0"),
    ],
)
def test_what_cannot_be_generated(prompts, new, options, message):
    with pytest.raises(ValueError, match=message):
        recipe.generate(made(), prompts, new, **options)


@pytest.mark.errors
def test_a_cache_that_does_not_fit():
    model = made()
    cache = recipe.Cache(model, 2, capacity=4)
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"2 rows and room for 4 .* got 1 rows"):
        model.read(tokens[:1], cache)
    for lengths in ([3], [3, 0], [3, 4]):
        with pytest.raises(ValueError, match=r"lengths must be 2 from 1 to 3"):
            model.read(tokens, cache, lengths)
    model.read(tokens, cache, [3, 1])
    with pytest.raises(ValueError, match=r"room for 4 .* got 2 rows and 5 tokens"):
        model.read(tokens[:, :2], cache)
    assert cache.lengths == [3, 1]


@pytest.mark.errors
def test_scores_that_are_no_numbers():
    model = made()
    with torch.no_grad():
        model.norm.weight[0] = torch.nan
    with pytest.raises(FloatingPointError, match="scores are not finite"):
        recipe.generate(model, PROMPTS, 3)


@pytest.mark.errors
def test_a_text_that_is_too_short():
    with pytest.raises(ValueError, match=r"24 tokens are too few for context=24"):
        begun().run(torch.zeros(24, dtype=torch.int16), 1)
    for length in (0, 20, 24):
        row = torch.zeros(length, dtype=torch.int16)
        with pytest.raises(ValueError, match=f"{length} tokens are too few for con"):
            recipe.evaluate(made(), row)


# As a script.


def run_here(monkeypatch, folder, *arguments):
    """As a script, without a process of its own."""
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [FILE.name, *sizes, "--new=4", *arguments])
    runpy.run_path(str(FILE), run_name="__main__")


NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="a device is there")
NO_MPS = pytest.mark.skipif(torch.mps.is_available(), reason="a device is there")


@pytest.mark.errors
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--top-k=0", r"top_k from 1 on: 0\.7, 0"),
        ("--temperature=-1", r"temperature from 0, .* on: -1\.0"),
        ("--new=24", r"prompt 0 has 1 tokens; with 24 more .*context=24"),
        ("--checkpoint=no/dir/m.pt", r"--checkpoint no.dir.m\.pt: .* no such folder"),
        ("--checkpoint=text.txt/m.pt", r"--checkpoint text.* no such folder"),
        pytest.param("--device=cuda", r"--device cuda: .*\w", marks=NO_CUDA),
        pytest.param("--device=mps", r"--device mps: .*\w", marks=NO_MPS),
        ("--device=nonsense", r"--device nonsense: .* device type"),
        ("--device=meta", r"--device meta: .*no data"),
    ],
)
def test_what_cannot_be_done_is_said_before_it_trains(
    tmp_path, monkeypatch, capsys, argument, message
):
    file = text(tmp_path).name
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as caught:
        run_here(monkeypatch, tmp_path, file, "--updates=1", argument)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.errors
def test_a_script_that_diverges_says_so_and_leaves_its_file(tmp_path, monkeypatch):
    run, path = begun(), tmp_path / "lm.pt"
    with torch.no_grad():
        run.model.embedding.weight.fill_(torch.nan)
    run.save(path)
    before, common = path.read_bytes(), [text(tmp_path).name, f"--checkpoint={path}"]
    with pytest.raises(SystemExit, match=r"^error: diverged after update 0: loss nan"):
        run_here(monkeypatch, tmp_path, *common, "--updates=1")
    assert path.read_bytes() == before
    with pytest.raises(SystemExit, match=r"^error: scores are not finite"):
        run_here(monkeypatch, tmp_path, *common, "--updates=0")


def test_a_short_text_in_a_notebook(tmp_path, monkeypatch):
    """No loss on text kept apart, which it says; and a stream of another kind."""
    (tmp_path / "short.txt").write_text("to be " * 10)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not hasattr(sys.stdout, "reconfigure")
    run_here(monkeypatch, tmp_path, "short.txt", "--updates=1", "--prompt=to")
    first, second, third = sys.stdout.getvalue().split("\n", 2)
    assert first.startswith("update 1: ")
    assert second == "no loss on text kept apart: 6 tokens are too few"
    assert third.startswith("--- to")


def run_script(folder, *arguments):
    """In a folder without the package, with `import seqref` refused."""
    (folder / "seqref.py").write_text("raise ImportError('torch alone')")
    file = folder / FILE.name
    file.write_text(FILE.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-W", "error", file.name, *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def test_it_runs_from_an_empty_folder_and_goes_on_from_its_file(tmp_path):
    sizes = [f"--{name}={value}" for name, value in SIZES.items()]
    common = [text(tmp_path).name, *sizes, "--checkpoint=lm.pt", "--new=8"]
    first = run_script(tmp_path, *common, "--updates=100", "--prompt=to be")
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0].startswith("update 100: ")
    assert float(lines[1].split(": ")[1].split()[0]) < 2.7
    assert lines[2].startswith("--- to be")
    again = run_script(tmp_path, *common, "--updates=100", "--prompt=to be")
    assert again.stdout.splitlines() == lines[1:], again.stderr
    other = run_script(tmp_path, *common, "--heads=2")
    assert other.returncode == 1
    assert other.stderr.startswith("error: lm.pt has Config(")


def test_it_says_what_it_takes(tmp_path):
    run = run_script(tmp_path, "--help")
    assert run.returncode == 0, run.stderr
    for name in ("files", "--prompt", "--top-k", "--checkpoint", "--kv-heads"):
        assert name in run.stdout
