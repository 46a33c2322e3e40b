r"""Layers as the package makes them: constructor and docstring from their cells.

The site is built without torch, so Griffe reads the files; what `built_from` does when
they are imported happens here by the same function.
"""

import importlib.util
from collections.abc import Iterator
from typing import Any

import griffe

DECORATOR = "seqref.recurrent._base.built_from"
MAKER = "seqref.recurrent._docstrings"


class LayerDocstrings(griffe.Extension):
    """Gives each layer its cell's parameters and the docstring made from both."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Change the layers of a package, once it is read."""
        for layer, cell in list(layers(pkg)):
            constructor = layer.members["__init__"]
            constructor.parameters = cell.parameters
            constructor.decorators.clear()
            text = maker(pkg)(layer.docstring.value, cell.docstring.value)
            layer.docstring.value = text


def layers(module: griffe.Module) -> Iterator[tuple[griffe.Class, griffe.Class]]:
    """Each class of a module and those inside it that has a cell, and the cell."""
    for inner in module.modules.values():
        if not inner.is_alias:
            yield from layers(inner)
    for layer in module.classes.values():
        constructor = None if layer.is_alias else layer.members.get("__init__")
        for decorator in getattr(constructor, "decorators", ()):
            if decorator.callable_path == DECORATOR:
                (cell,) = decorator.value.arguments
                yield layer, module.modules_collection[cell.canonical_path]


def maker(pkg: griffe.Module) -> Any:
    """The package's `layer_docstring`, loaded from its file alone."""
    path = pkg.modules_collection[MAKER].filepath
    spec = importlib.util.spec_from_file_location(MAKER, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.layer_docstring
