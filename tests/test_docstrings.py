"""Docstrings follow the template, and their names are those of the code."""

import ast
import builtins
import importlib
import importlib.util
import inspect
import pkgutil
import re
from dataclasses import is_dataclass

import pytest
from torch import nn

import seqref

SECTIONS = {
    "Args",
    "Backends",
    "Cost",
    "Forms",
    "Initialisation",
    "Raises",
    "Returns",
    "Shapes",
    "Source",
    "Units",
}
FAMILIES = ("recurrent", "attention", "convolution", "linear", "ssm")
HEADING = re.compile(r"^([A-Z]\w*):$", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\w+): \S", re.MULTILINE)


def modules():
    """Every module of the package that a reader can import by name."""
    imported = [seqref]
    for info in pkgutil.walk_packages(seqref.__path__, "seqref."):
        parts = info.name.split(".")
        hidden = any(part.startswith("_") for part in parts)
        # A kernel's module can be imported only where Triton is.
        hidden |= parts[-1] == "triton" and not importlib.util.find_spec("triton")
        if not hidden and info.name != "seqref.cli":
            imported.append(importlib.import_module(info.name))
    return imported


def owned(module):
    """Public functions and classes that the module itself defines."""
    return {
        f"{module.__name__}.{name}": value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


def methods(name, kind):
    return {
        f"{name}.{method}": value
        for method, value in vars(kind).items()
        if not method.startswith("_") and inspect.isfunction(value)
    }


MODULES = modules()
DEFINED = {n: v for module in MODULES for n, v in owned(module).items()}
METHODS = {
    n: v
    for name, kind in DEFINED.items()
    if inspect.isclass(kind)
    for n, v in methods(name, kind).items()
}
DOCUMENTED = {n: v for n, v in (DEFINED | METHODS).items() if v.__doc__}
EXPORTED = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in MODULES
    for name in getattr(module, "__all__", ())
}


def sections(value):
    """The docstring's sections by name, and the text before the first."""
    parts = HEADING.split(inspect.cleandoc(value.__doc__ or ""))
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def parameters(value):
    if is_dataclass(value) or not inspect.isclass(value):
        signature = inspect.signature(value)
    else:
        signature = inspect.signature(value.__init__)
    return [name for name in signature.parameters if name not in ("self", "cls")]


def exception(name, module):
    return getattr(builtins, name, None) or getattr(
        importlib.import_module(module), name, None
    )


def test_the_lists_are_not_empty():
    assert {"seqref.LSTM", "seqref.testing.check_sequence_layer"} <= set(EXPORTED)
    assert "seqref.recurrent.lstm.LSTM.step" in METHODS
    assert "seqref.ops.fused_recurrence.fused_lstm" in DEFINED


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_modules_say_what_they_are(module):
    assert (module.__doc__ or "").strip().endswith((".", "`"))
    exported = getattr(module, "__all__", [])
    missing = [name for name in exported if not hasattr(module, name)]
    assert missing == []
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("name", [n for n, v in EXPORTED.items() if callable(v)])
def test_exported_objects_have_a_docstring(name):
    summary = sections(EXPORTED[name])[""].split("\n\n")[0]
    assert summary.strip().endswith((".", "`")), name


@pytest.mark.parametrize("name", DOCUMENTED)
def test_sections_are_known_and_in_agreement_with_the_code(name):
    value = DOCUMENTED[name]
    written = sections(value)
    assert set(written) - {""} <= SECTIONS
    for section, text in written.items():
        assert text.strip(), f"{name}: {section or 'the summary'} is empty"
    if "Args" in written:
        assert ENTRY.findall(written["Args"]) == parameters(value)
    raised = ENTRY.findall(written.get("Raises", ""))
    assert bool(raised) == ("Raises" in written)
    for error in raised:
        kind = exception(error, value.__module__)
        assert inspect.isclass(kind), f"{name}: no exception is called {error}"
        assert issubclass(kind, BaseException)


def raises_itself(value):
    """Kinds of the exceptions that stand in the function's own body."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(value)))
    calls = [n.exc for n in ast.walk(tree) if isinstance(n, ast.Raise) and n.exc]
    return {
        call.func.id
        for call in calls
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }


FUNCTIONS = {n: v for n, v in DOCUMENTED.items() if inspect.isfunction(v)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_name_the_errors_that_they_raise(name):
    value = FUNCTIONS[name]
    written = sections(value)
    documented = ENTRY.findall(written.get("Raises", ""))
    # A one-line docstring may name the error in its sentence.
    for error in raises_itself(value) & set(vars(builtins)):
        assert error in documented or f"`{error}`" in written[""], (name, error)


CONCEPTS = {
    n: v
    for n, v in EXPORTED.items()
    if n.split(".")[1] in FAMILIES and inspect.isclass(v) and issubclass(v, nn.Module)
}


@pytest.mark.parametrize("name", CONCEPTS)
def test_concepts_have_every_section(name):
    value = CONCEPTS[name]
    wanted = {"Args", "Shapes", "Cost", "Initialisation", "Raises", "Source"}
    if hasattr(value, "step"):
        wanted |= {"Forms"}
    parts = sections(value)
    assert wanted - set(parts) == set()
    assert "$$" in parts[""], f"{name} shows no equation"
    assert re.search(r"\b(19|20)\d\d\b", parts["Source"]), f"{name}: no year in Source"
    for argument in ("x_t", "x", "state", "lengths"):
        if argument in inspect.signature(value.forward).parameters:
            assert f"`{argument}`" in parts["Shapes"]


OPS = {
    n: v
    for n, v in EXPORTED.items()
    if n.startswith("seqref.ops.") and inspect.isfunction(v)
}


@pytest.mark.parametrize("name", OPS)
def test_ops_have_every_section_and_the_table_of_backends(name):
    module = importlib.import_module(name.rpartition(".")[0])
    written = sections(OPS[name])
    wanted = {"Args", "Shapes", "Cost", "Backends", "Raises", "Source"}
    assert wanted - set(written) == set()
    rows = re.findall(r'^ *\| `"(\w+)"` \|', written["Backends"], re.MULTILINE)
    assert rows == list(module.BACKENDS)


def test_a_renamed_argument_is_caught():
    def renamed(a, c):
        r"""Do.

        Args:
            a: One.
            b: Two.

        Raises:
            NoSuchError: never.
        """

    written = sections(renamed)
    assert ENTRY.findall(written["Args"]) == ["a", "b"] != parameters(renamed)
    assert exception(ENTRY.findall(written["Raises"])[0], __name__) is None
