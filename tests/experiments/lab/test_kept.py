"""What was made once is read again; of another config or source it is made anew."""

import importlib
from dataclasses import dataclass, replace

import pytest

from experiments.lab.kept import kept


@dataclass(frozen=True)
class Config:
    keep: str | None
    size: int = 1


def test_a_result_is_made_once_for_each_name_and_config(tmp_path):
    made = []

    def make():
        made.append(len(made))
        return {"value": [made[-1], 0.1]}

    config, where = Config(str(tmp_path)), "experiments.lab.kept"
    assert kept(config, where, "a", make) == {"value": [0, 0.1]}
    assert kept(config, where, "a", make) == {"value": [0, 0.1]}
    assert kept(config, where, "b", make) == {"value": [1, 0.1]}
    assert kept(replace(config, size=2), where, "a", make) == {"value": [2, 0.1]}
    assert kept(config, "experiments.lab.files", "a", make) == {"value": [3, 0.1]}
    assert len(list(tmp_path.iterdir())) == 4


def test_other_sources_make_another_file(tmp_path, monkeypatch):
    config, where = Config(str(tmp_path)), "experiments.lab.kept"
    kept(config, where, "a", lambda: {"value": 0})
    # The package has a function of the module's name.
    module = importlib.import_module("experiments.lab.kept")
    monkeypatch.setattr(module, "hash_of", lambda name: "other")
    assert kept(config, where, "a", lambda: {"value": 1}) == {"value": 1}


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = iter((1, 2))
    for value in (1, 2):
        result = kept(Config(None), "experiments.lab.kept", "a", lambda: next(values))
        assert result == value
    assert not list(tmp_path.iterdir())


def test_what_was_stopped_leaves_no_file(tmp_path):
    config = Config(str(tmp_path))

    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept(config, "experiments.lab.kept", "a", stopped)
    assert not list(tmp_path.iterdir())
