import errno
import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize, prune

from experiments.lab.files import write_whole
from seqref import LSTM, RNN
from seqref.models import LanguageModel
from seqref.recurrent import GRU, ChoGRU
from seqref.tasks import Vocabulary
from seqref.training import checkpoint
from seqref.training.checkpoint import (
    load_checkpoint,
    load_language_model,
    save_checkpoint,
    save_language_model,
)

VOCABULARY = Vocabulary("abc\nä🙂")


def make_model(layer=None):
    torch.manual_seed(0)
    return LanguageModel(len(VOCABULARY), layer or LSTM(3, 5))


@pytest.mark.parametrize(
    "layer",
    [
        LSTM(3, 5),
        LSTM(3, 5, bias=False),
        RNN(3, 5),
        RNN(3, 5, nonlinearity="relu"),
        GRU(3, 5),
        ChoGRU(3, 5, bias=False),
    ],
    ids=["LSTM", "no-bias", "RNN", "relu", "GRU", "ChoGRU"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(tmp_path, layer, dtype):
    model = make_model(layer).to(dtype)
    path = tmp_path / "new" / "model.safetensors"
    save_language_model(path, model, VOCABULARY, {"step": 7, "seed": 1})
    loaded, vocabulary, facts = load_language_model(path)
    assert vocabulary.characters == VOCABULARY.characters
    assert facts == {"step": 7, "seed": 1}
    tokens = VOCABULARY.encode("abc🙂 bca")[None]
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])
    assert loaded.head.weight.dtype == dtype


def test_saving_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "model.safetensors"
    for step in (1, 2):
        save_language_model(path, make_model(), VOCABULARY, {"step": step})
    assert load_language_model(path)[2] == {"step": 2}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "model.safetensors"
    save_language_model(path, make_model(), VOCABULARY, {"step": 1})

    def fail(handle):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        save_language_model(path, make_model(), VOCABULARY, {"step": 2})
    assert load_language_model(path)[2] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_saving_leaves_the_umask_alone(tmp_path, monkeypatch):
    """It belongs to the process: another thread may be making a file at that time."""
    calls = []
    monkeypatch.setattr(os, "umask", calls.append)
    save_language_model(tmp_path / "model.safetensors", make_model(), VOCABULARY)
    write_whole(tmp_path / "text.txt", "text")
    assert calls == []


def test_tied_weights_are_stored(tmp_path):
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5))
    model[1].weight = model[0].weight
    checkpoint.save_checkpoint(tmp_path / "tied", model, {})
    tensors, _ = checkpoint.load_checkpoint(tmp_path / "tied")
    assert list(tensors) == ["0.weight", "1.bias", "1.weight"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensors[name], tensor)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path, monkeypatch, code):
    path = tmp_path / "model.safetensors"
    save_language_model(path, make_model(), VOCABULARY)
    original = Path.open

    def fail(self, *arguments, **options):
        if self == path:
            raise OSError(code, os.strerror(code), str(self))
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    match = f"{str(path)!r} cannot be read: {os.strerror(code)}"
    with pytest.raises(OSError, match=re.escape(match)) as caught:
        load_language_model(path)
    assert caught.value.errno == code
    assert not isinstance(caught.value, FileNotFoundError)


def test_a_file_that_cannot_be_made_is_named_and_not_its_temporary_one(
    tmp_path, monkeypatch
):
    path = tmp_path / "model.safetensors"

    def fail(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(arguments[0]))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(PermissionError) as caught:
        save_language_model(path, make_model(), VOCABULARY)
    assert str(caught.value) == f"{str(path)!r} could not be written: Permission denied"


# torch's own, when the compiler is imported.
IMPORTS = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")


class OneMore(LanguageModel):
    def __init__(self, vocab_size, layer):
        super().__init__(vocab_size, layer)
        self.middle = torch.nn.Linear(5, 5)


def computed(change):
    def make():
        model = make_model()
        change(model)
        return model

    return make


def without_bias(model):
    model.head = torch.nn.Linear(5, len(VOCABULARY), bias=False)


def with_padding(model):
    model.embedding = torch.nn.Embedding(len(VOCABULARY), 3, padding_idx=0)


def with_one_more(model):
    model.extra = torch.nn.Parameter(torch.zeros(2))


def halves_of_one(model):
    model.head.bias = torch.nn.Parameter(model.embedding.weight.data.view(-1)[:7])


def compiled_inside(model):
    model.layer = torch.compile(model.layer)


def pruned(model):
    prune.l1_unstructured(model.layer.cell, "weight_hh", amount=0.5)


OTHERS = {
    "compiled": (
        lambda: torch.compile(make_model()),
        TypeError,
        r"got what torch\.compile made of it \(pass model\._orig_mod\)$",
    ),
    "compiled_inside": (
        computed(compiled_inside),
        TypeError,
        r"got layer from torch\.compile \(compile it by model\.layer\.compile\(\)",
    ),
    "parallel": (
        lambda: torch.nn.DataParallel(make_model()),
        TypeError,
        r"got DataParallel around it \(pass model\.module\)$",
    ),
    "subclass": (
        lambda: OneMore(len(VOCABULARY), LSTM(3, 5)),
        TypeError,
        r"must be a LanguageModel itself, got OneMore \(.*save_checkpoint",
    ),
    "weight_norm": (
        computed(lambda m: parametrizations.weight_norm(m.layer.cell, "weight_hh")),
        ValueError,
        r"`model\.layer\.cell` must be LSTMCell\(.* got .*remove_parametrizations",
    ),
    "spectral_norm": (
        computed(lambda m: parametrizations.spectral_norm(m.head)),
        ValueError,
        r"`model\.head` must be Linear\(.* got .*ParametrizedLinear",
    ),
    "pruned": (
        computed(pruned),
        ValueError,
        r"`model\.layer\.cell\.weight_hh` must have shape .*prune\.remove",
    ),
    "head": (computed(without_bias), ValueError, r"`model\.head` must be .*bias=True"),
    "padding": (
        computed(with_padding),
        ValueError,
        r"`model\.embedding` .*padding_idx",
    ),
    "one_more": (
        computed(with_one_more),
        ValueError,
        r"`model\.extra` must have shape None, as it will be read, got \(2,\)",
    ),
    "overlapping": (
        computed(halves_of_one),
        ValueError,
        r"got `model\.embedding\.weight` and `model\.head\.bias` .*one torch\.nn\.Par",
    ),
    "meta": (lambda: make_model().to("meta"), ValueError, "must have numbers to write"),
}


@IMPORTS
@pytest.mark.errors
@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_would_not_come_back_is_refused_before_writing(tmp_path, name):
    make, kind, message = OTHERS[name]
    path = tmp_path / "folder" / "model.safetensors"
    with pytest.raises(kind, match=message):
        save_language_model(path, make(), VOCABULARY)
    assert not path.parent.exists()


@IMPORTS
def test_the_ways_out_that_the_messages_name(tmp_path):
    path = tmp_path / "model.safetensors"
    plain = make_model()
    tokens = VOCABULARY.encode("abc🙂 bca")[None]
    for model in (torch.compile(plain)._orig_mod, torch.nn.DataParallel(plain).module):
        save_language_model(path, model, VOCABULARY)
        assert torch.equal(load_language_model(path)[0](tokens)[0], plain(tokens)[0])
    plain.compile(backend="eager")
    save_language_model(path, plain, VOCABULARY)
    normed, cut = make_model(), make_model()
    parametrizations.weight_norm(normed.layer.cell, "weight_hh")
    parametrize.remove_parametrizations(normed.layer.cell, "weight_hh")
    pruned(cut)
    prune.remove(cut.layer.cell, "weight_hh")
    for model in (normed, cut):
        save_language_model(path, model, VOCABULARY)
        assert torch.equal(load_language_model(path)[0](tokens)[0], model(tokens)[0])


def test_tied_parameters_come_back_tied(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    model = LanguageModel(len(VOCABULARY), LSTM(5, 5))
    model.head.weight = model.embedding.weight
    model.layer.cell.bias_hh = model.layer.cell.bias_ih
    save_language_model(path, model, VOCABULARY)
    loaded, _, _ = load_language_model(path)
    assert loaded.head.weight is loaded.embedding.weight
    assert loaded.layer.cell.bias_hh is loaded.layer.cell.bias_ih
    assert loaded.layer.cell.weight_hh is not loaded.layer.cell.weight_ih
    names = [name for name, _ in model.named_parameters()]
    assert [name for name, _ in loaded.named_parameters()] == names
    tokens = VOCABULARY.encode("abc🙂 bca")[None]
    for each in (model, loaded):
        torch.optim.SGD(each.parameters(), lr=0.1).zero_grad()
        each(tokens)[0].square().sum().backward()
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])
    assert torch.equal(loaded.head.weight.grad, model.head.weight.grad)


def test_each_parameter_keeps_its_dtype(tmp_path):
    path = tmp_path / "model.safetensors"
    model = make_model().bfloat16()
    model.head.float()
    save_language_model(path, model, VOCABULARY)
    loaded = load_language_model(path)[0]
    for name, parameter in model.named_parameters():
        assert loaded.get_parameter(name).dtype == parameter.dtype
        assert torch.equal(loaded.get_parameter(name), parameter)
        assert loaded.get_parameter(name).requires_grad


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    model = make_model()
    save_language_model(path, model, VOCABULARY)
    tensors, _ = load_checkpoint(path)
    loaded = load_language_model(path)[0]
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size // 2))
    for name, value in model.state_dict().items():
        assert torch.equal(tensors[name], value)
        assert torch.equal(loaded.state_dict()[name], value)


class Counting(torch.nn.Linear):
    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        pass


@IMPORTS
@pytest.mark.errors
def test_a_module_whose_names_or_state_would_not_come_back(tmp_path):
    path = tmp_path / "folder" / "any.safetensors"
    modules = {
        torch.compile(torch.nn.Linear(2, 2)): (TypeError, r"pass model\._orig_mod"),
        torch.nn.Sequential(torch.compile(torch.nn.Linear(2, 2))): (
            TypeError,
            r"got 0 from torch\.compile",
        ),
        torch.nn.DataParallel(torch.nn.Linear(2, 2)): (
            TypeError,
            r"pass model\.module",
        ),
        torch.nn.Sequential(Counting(2, 2)): (
            TypeError,
            r"must hold tensors alone, got dict at '0\._extra_state' \(what get_extra",
        ),
        torch.nn.Linear(2, 2, device="meta"): (ValueError, "'weight' on the device"),
    }
    for module, (kind, message) in modules.items():
        with pytest.raises(kind, match="^save_checkpoint: .*" + message):
            save_checkpoint(path, module, {})
    assert not path.parent.exists()


@pytest.mark.parametrize("keep", [0, 4, 100, -40, -1])
def test_a_torn_file_is_refused(tmp_path, keep):
    path = tmp_path / "model.safetensors"
    save_language_model(path, make_model(), VOCABULARY)
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(ValueError, match="torn or not a safetensors file"):
        load_language_model(path)


def test_a_file_that_changed_is_refused_and_equal_ones_have_equal_bytes(tmp_path):
    path = tmp_path / "model.safetensors"
    save_language_model(path, make_model(), VOCABULARY, {"step": 7})
    data = path.read_bytes()
    for _ in range(5):
        save_language_model(path, make_model(), VOCABULARY, {"step": 7})
        assert path.read_bytes() == data
    for changed in (
        data[:-3] + b"\0\0\0",
        data.replace(b'\\"step\\": 7', b'\\"step\\": 8'),
    ):
        assert changed != data
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="has changed since it was written"):
            load_language_model(path)


@pytest.mark.errors
def test_a_kind_of_tensor_that_the_format_lacks_is_named(tmp_path):
    def of(dtype):
        return torch.nn.ParameterDict({"bias": torch.ones(2, dtype=dtype)})

    with pytest.raises(TypeError, match=r"tensor of dtype torch\.complex128"):
        save_checkpoint(tmp_path / "complex", of(torch.complex128), {})
    for dtype in (torch.complex64, torch.bfloat16, torch.float16):
        save_checkpoint(tmp_path / "file", of(dtype), {})
        assert load_checkpoint(tmp_path / "file")[0]["bias"].dtype == dtype


def test_foreign_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_language_model(path)
    path.write_text("hello, this is no checkpoint at all\n")
    with pytest.raises(ValueError, match="torn or not a safetensors file"):
        load_language_model(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="was not written by seqref"):
        load_language_model(path)
    save_file({"weight": torch.zeros(2)}, path, metadata={"seqref": "{"})
    with pytest.raises(ValueError, match="of its header is not JSON"):
        load_language_model(path)
    save_file({"weight": torch.zeros(2)}, path, metadata={"seqref": "[1]"})
    with pytest.raises(ValueError, match="has no config and sha256"):
        load_language_model(path)
    save_checkpoint(path, torch.nn.Linear(2, 2), {"format": "other"})
    with pytest.raises(ValueError, match=r"must have format .*, got 'other'"):
        load_language_model(path)
    assert set(load_checkpoint(path)[0]) == {"weight", "bias"}


@pytest.mark.parametrize(
    "change",
    [
        {"layer": "GRUs"},
        {"layer": "GRU"},
        {"sizes": {"input_size": 3, "hidden_size": 6, "bias": True}},
        {"sizes": {"input_size": 3, "hidden_size": 5, "gates": 4}},
        {"sizes": {"input_size": 3, "hidden_size": -5, "bias": True}},
        {"vocabulary": ["a", "b"]},
        {"vocabulary": ["ab"]},
        {"vocabulary": 3},
        {"vocabulary": None},
        {"ties": [["embedding.weight", "head.weight"]]},
        {"ties": [["embedding.weight", "nowhere.weight"]]},
        {"ties": 3},
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, change):
    path = tmp_path / "model.safetensors"
    save_language_model(path, make_model(), VOCABULARY)
    _, config = load_checkpoint(path)
    save_checkpoint(path, make_model(), {**config, **change})
    with pytest.raises(ValueError, match="does not hold the model"):
        load_language_model(path)


def test_the_header_is_readable_json(tmp_path):
    path = tmp_path / "model.safetensors"
    save_language_model(path, make_model(), VOCABULARY, {"step": 3})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["seqref"])
    config = entry["config"]
    assert config["layer"] == "LSTM"
    assert config["facts"]["step"] == 3


class Other(LSTM):
    pass


@pytest.mark.errors
def test_refuses_what_it_could_not_load(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    with pytest.raises(
        TypeError, match=r"must be one of LSTM, GRU, .*, Transformer, got Other"
    ):
        save_language_model(path, make_model(Other(3, 5)), VOCABULARY)
    with pytest.raises(ValueError, match="model's 7 symbols, got 3"):
        save_language_model(path, make_model(), Vocabulary("ab"))
    with pytest.raises(ValueError, match="JSON compliant"):
        save_language_model(path, make_model(), VOCABULARY, {"loss": float("nan")})
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(RuntimeError, match=r'pip install "\.\[train\]"'):
        save_language_model(path, make_model(), VOCABULARY)
    assert not path.exists()
