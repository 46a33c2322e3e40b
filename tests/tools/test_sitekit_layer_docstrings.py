"""The site reads the files, and shows what Python makes of them when it runs."""

import inspect
from pathlib import Path

import griffe
import pytest

from tests.layers import LAYERS, OF_A_CELL

SOURCE = Path(__file__).parents[2] / "src"
KINDS = {kind.__name__: kind for kind in (LAYERS[n].kind for n in OF_A_CELL)}


@pytest.fixture(scope="module")
def package():
    """The package as Griffe reads it for the site."""
    extensions = griffe.load_extensions("sitekit.layer_docstrings")
    return griffe.load("seqref", search_paths=[SOURCE], extensions=extensions)


@pytest.mark.parametrize("name", KINDS)
def test_the_docstring_is_that_of_the_running_package(package, name):
    shown = package[name].target.docstring.value
    assert inspect.cleandoc(shown) == inspect.getdoc(KINDS[name])
    assert "Args:" in shown


@pytest.mark.parametrize("name", KINDS)
def test_the_parameters_are_those_of_the_running_package(package, name):
    shown = [p for p in package[name].target.parameters if p.name != "self"]
    running = inspect.signature(KINDS[name]).parameters.values()
    assert [p.name for p in shown] == [p.name for p in running]
    assert [p.kind.value for p in shown] == [p.kind.description for p in running]
    written = [p.default and str(p.default).replace('"', "'") for p in shown]
    assert written == [
        None if p.default is p.empty else repr(p.default) for p in running
    ]
