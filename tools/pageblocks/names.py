r"""Which names a block defines and which it needs, read from its text alone."""

import symtable
from collections.abc import Iterator


def defined(code: str) -> set[str]:
    r"""The module-level names that a block binds."""
    table = _table(code)
    if table is None:
        return set()
    bound = {s.get_name() for s in table.get_symbols() if _binds(s)}
    for inner in _inner(table):
        bound |= {
            s.get_name()
            for s in inner.get_symbols()
            if s.is_declared_global() and s.is_assigned()
        }
    return bound


def needed(code: str) -> set[str]:
    r"""The names that a block takes from earlier blocks, or from the builtins.

    A name that the block both binds and reads counts as its own: whether it was
    read first is only known when the block runs.
    """
    table = _table(code)
    if table is None:
        return set()
    read = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    for inner in _inner(table):
        read |= {
            s.get_name()
            for s in inner.get_symbols()
            if s.is_referenced() and s.is_global()
        }
    return read - defined(code)


def _table(code: str) -> symtable.SymbolTable | None:
    try:
        return symtable.symtable(code, "block", "exec")
    except SyntaxError:
        return None


def _binds(symbol: symtable.Symbol) -> bool:
    return symbol.is_assigned() or symbol.is_imported()


def _inner(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _inner(child)
