r"""The formulas of pages and docstrings are what the package computes.

Three steps of a cell are written out below and held to the package; each statement
`symbol = expression` of a formula must then hold of their values and gradients.
"""

import inspect
import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

import seqref
from seqref.ops.fused_recurrence import parallel, reference

PAGES = Path(__file__).resolve().parents[1] / "docs" / "recurrent"
TIMES = (1, 2, 3)


# Formulas, read.

SKIPPED = re.compile(
    r"\\(?:begin|end)\{aligned\}|(?<!\\)\\[,;!\s]|\\[bB]ig[lr]\b|\\left\b|\\right\b"
)
SUM = r"\\sum_(?:t\b|\{t=1\}\^(?:T|\{T\}))"
SYMBOL = (
    r"(?:\\bar|\\tilde)?\s*(?:\\delta|[A-Za-z])"
    r"(?:\^(?:[a-z]|\{pre\})(?=_))?(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?"
)
TOKEN = re.compile(
    rf"\s*(?:(?P<sum>\\sum_t\b)|(?P<function>\\(?:sigma|tanh|phi)'?)(?P<squared>\^2)?"
    rf"|(?P<symbol>{SYMBOL})|(?P<top>\^\\top|\^T)|(?P<square>\^2)|(?P<number>\d+)"
    r"|(?P<odot>\\odot)|(?P<mark>[()+\-,]))\s*"
)
FUNCTIONS = {
    r"\sigma": torch.sigmoid,
    r"\tanh": torch.tanh,
    r"\phi": torch.tanh,
    r"\phi'": lambda a: 1 - a.tanh() ** 2,
}


class Unread(Exception):
    """What is no formula of the kind that is read here."""


def statements(formula):
    r"""Pairs of symbols and expression: of `a = b = c` the pair `((a, b), c)`.

    The symbols of `a \leftarrow c` begin with an arrow.
    """
    text = re.sub(SUM, r"\\sum_t ", SKIPPED.sub(" ", formula))
    text = text.replace(r"\text{pre}", "pre")
    text = text.replace(r"\leftarrow", "= <-").replace("&=", "=").replace("&&", "&")
    for part in re.split(r"\\\\|\\q?quad|&(?!\s*=)", text.replace("& =", "=")):
        *symbols, expression = part.split("=")
        if symbols and re.search(r"\S", expression):
            arrow = "<-" if "<-" in expression else ""
            names = [arrow + key_of(symbol) for symbol in symbols]
            yield names, expression.replace("<-", "").strip().rstrip(".,").strip()


def key_of(symbol):
    return re.sub(r"[\s{}]", "", symbol)


class Reader:
    """Computes one expression from its tokens, by the usual precedence."""

    def __init__(self, expression, values):
        self.values, self.tokens, at = values, [], 0
        while at < len(expression):
            match = TOKEN.match(expression, at)
            if match is None:
                raise Unread(expression[at:])
            self.tokens.append(match)
            at = match.end()
        self.at = 0

    def kind(self):
        return self.tokens[self.at].lastgroup if self.at < len(self.tokens) else None

    def text(self):
        return self.tokens[self.at][0].strip() if self.kind() else ""

    def whole(self, t):
        self.at = 0
        found = self.sum(t)
        if self.kind():
            raise Unread(self.text())
        return found

    def sum(self, t):
        found = None
        while found is None or self.text() in ("+", "-"):
            sign = 1
            if self.text() in ("+", "-"):
                sign = -1 if self.text() == "-" else 1
                self.at += 1
            term = sign * self.product(t)
            found = term if found is None else found + term
        return found

    def product(self, t):
        if self.kind() == "sum":
            self.at += 1
            begin, terms = self.at, []
            for each in TIMES:
                self.at = begin
                terms.append(self.product(each))
            return sum(terms)
        found = self.factor(t)
        while self.kind() and self.text() not in ("+", "-", ")", ","):
            if self.kind() == "odot":
                self.at += 1
                found = found * self.factor(t)
            else:
                found = joined(found, self.factor(t))
        return found

    def factor(self, t):
        kind, match = self.kind(), self.tokens[self.at] if self.kind() else None
        self.at += 1
        if kind in ("function", "squared"):
            if match["function"] not in FUNCTIONS:
                raise Unread(match[0])
            found = FUNCTIONS[match["function"]](self.factor(t))
            return found**2 if match["squared"] else found
        if kind == "number":
            found = torch.tensor(float(match[0]), dtype=torch.float64)
        elif kind == "symbol":
            found = value(self.values, key_of(match[0]), t)
        elif match and match[0].strip() == "(":
            parts = [self.sum(t)]
            while self.text() == ",":
                self.at += 1
                parts.append(self.sum(t))
            if self.text() != ")":
                raise Unread(self.text())
            self.at += 1
            found = parts[0] if len(parts) == 1 else torch.cat(parts)
        else:
            raise Unread(match[0] if match else "the end")
        while self.kind() in ("top", "square"):
            found = found**2 if self.kind() == "square" else transposed(found)
            self.at += 1
        return found


def transposed(a):
    return a.T if a.dim() == 2 else a[None]


def joined(a, b):
    """What stands side by side: a factor, a matrix and a vector, a column and a row."""
    if 0 in (a.dim(), b.dim()):
        return a * b
    return a[:, None] * b if a.dim() == 1 else a @ b


def value(values, key, t):
    """That of a symbol at step t; `KeyError` where there is none."""
    back = key.startswith("<-")
    match = re.fullmatch(r"(.+)_(t|t-1|t\+1|T|0|1)", key.removeprefix("<-"))
    if match:
        times = {"t": t, "t-1": t - 1, "t+1": t + 1, "T": TIMES[-1], "0": 0, "1": 1}
        return values[match[1]][times[match[2]]]
    key = key.removeprefix("<-")
    # A state without a step is what the next one hands back; it belongs to this one.
    found = values.get(f"{key} on", values.get(key))
    return found[t - back] if isinstance(found, dict) else found


# Steps, written out.


def lstm(v, x_t, h_prev, c_prev):
    z = v["W_ih"] @ x_t + v["b_ih"] + v["W_hh"] @ h_prev + v["b_hh"]
    i, f, g, o = z.chunk(4)
    i_t = torch.sigmoid(i + v["p_i"] * c_prev)
    f_t = torch.sigmoid(f + v["p_f"] * c_prev)
    g_t = g.tanh()
    c_t = f_t * c_prev + i_t * g_t
    o_all = o + v["p_o"] * c_t
    gates = {"i": i_t, "f": f_t, "g": g_t, "o": o_all.sigmoid(), "z": z}
    pre = {"i_pre": i, "f_pre": f, "g_pre": g, "o_pre": o}
    return gates | pre | {"c": c_t, "h": gates["o"] * c_t.tanh()}


def three_blocks(v, x_t, h_prev, c_prev, coupled):
    z = v["W_ih"] @ x_t + v["b_ih"] + v["W_hh"] @ h_prev + v["b_hh"]
    i, g, o = z.chunk(3)
    i_t, o_t = i.sigmoid(), o.sigmoid()
    g_t = g.tanh() if coupled else 4 * g.sigmoid() - 2
    c_t = (1 - i_t if coupled else 1) * c_prev + i_t * g_t
    h_t = o_t * (c_t.tanh() if coupled else 2 * c_t.sigmoid() - 1)
    pre = {"i_pre": i, "g_pre": g, "o_pre": o}
    return pre | {"i": i_t, "g": g_t, "o": o_t, "c": c_t, "h": h_t}


def lstm_1997(*given):
    return three_blocks(*given, coupled=False)


def coupled_gate(*given):
    return three_blocks(*given, coupled=True)


def rnn(v, x_t, h_prev):
    a = v["W_ih"] @ x_t + v["b_ih"] + v["W_hh"] @ h_prev + v["b_hh"]
    return {"a": a, "z": a, "h": a.tanh()}


def gates_of_gru(v, x_t, h_prev):
    def gate(k):
        return v[f"W_i{k}"] @ x_t + v[f"b_i{k}"] + v[f"W_h{k}"] @ h_prev + v[f"b_h{k}"]

    pre = {"r^pre": gate("r"), "z^pre": gate("z")}
    return pre | {"r": pre["r^pre"].sigmoid(), "z": pre["z^pre"].sigmoid()}


def gru(v, x_t, h_prev):
    found = gates_of_gru(v, x_t, h_prev)
    s = v["W_hn"] @ h_prev + v["b_hn"]
    n_pre = v["W_in"] @ x_t + v["b_in"] + found["r"] * s
    n = n_pre.tanh()
    h_t = (1 - found["z"]) * n + found["z"] * h_prev
    return found | {"s": s, "m": s, "n^pre": n_pre, "n": n, "h": h_t}


def cho_gru(v, x_t, h_prev):
    found = gates_of_gru(v, x_t, h_prev)
    u = found["r"] * h_prev
    n_pre = v["W_in"] @ x_t + v["b_in"] + v["W_hn"] @ u + v["b_hn"]
    n = n_pre.tanh()
    h_t = (1 - found["z"]) * n + found["z"] * h_prev
    return found | {"u": u, "n^pre": n_pre, "n": n, "h": h_t}


KINDS = {
    "rnn": (seqref.RNNCell, rnn, ""),
    "lstm": (seqref.LSTMCell, lstm, "ifgo"),
    "peephole": (seqref.PeepholeLSTMCell, lstm, "ifgo"),
    "lstm_1997": (seqref.LSTM1997Cell, lstm_1997, "igo"),
    "coupled": (seqref.CoupledGateLSTMCell, coupled_gate, "igo"),
    "gru": (seqref.GRUCell, gru, "rzn"),
    "cho_gru": (seqref.ChoGRUCell, cho_gru, "rzn"),
}
# Which gradients a name for several stands for.
STACKS = {
    "gru": {"a": ("r^pre", "z^pre", "n^pre"), "b": ("r^pre", "z^pre", "s")},
    "cho_gru": {"a": ("r^pre", "z^pre", "n^pre")},
    "lstm": {"a": ("i_pre", "f_pre", "g_pre", "o_pre")},
}


@cache
def values_of(kind):
    r"""Every symbol of three steps, and, with `\bar` or `\delta`, its gradient."""
    made, step, order = KINDS[kind]
    torch.manual_seed(0)
    cell = made(3, 4, dtype=torch.float64)
    v = constants(cell, order)
    fields = cell.state_type._fields
    xs = torch.randn(len(TIMES), 3, dtype=torch.float64, requires_grad=True)
    state = [torch.randn(4).double().requires_grad_() for _ in fields]
    # What is handed on is a copy, so that its gradient is that of the steps after.
    timed = {"x": {}}
    for name, part in zip(fields, state, strict=True):
        timed |= {name: {0: part}, f"{name} on": {0: part}}
    for t, x_t in zip(TIMES, xs.unbind(), strict=True):
        found = step(v, x_t, *state)
        _, theirs = cell(x_t[None], cell.state_type(*(part[None] for part in state)))
        state = [found[name].clone() for name in fields]
        for mine, part in zip(state, theirs, strict=True):
            torch.testing.assert_close(mine, part[0], atol=1e-12, rtol=1e-12)
        copies = {f"{n} on": part for n, part in zip(fields, state, strict=True)}
        for name, part in {**found, **copies, "x": x_t}.items():
            timed.setdefault(name, {})[t] = part
    bars = gradients({**v, **timed}, state)
    for name, parts in STACKS.get(kind, {}).items():
        bars[name] = {t: torch.cat([bars[p][t] for p in parts]) for t in TIMES}
    named = {rf"\bar{name}": bar for name, bar in bars.items()}
    named |= {rf"\delta{at(name)}": bar for name, bar in bars.items() if at(name)}
    named[r"\delta"] = bars.get("a")
    if kind == "gru":
        # Of the sums on the side of the input, and on that of the state.
        named |= {r"\delta^i": bars["a"], r"\delta^h": bars["b"]}
    return {**v, **timed, "y": timed["h"], **named}


def at(name):
    """`^i` of `i_pre` or `i^pre`, and of the sum s."""
    return f"^{name[0]}" if name.endswith("pre") or name == "s" else ""


def constants(cell, order):
    v = {}
    for ours, name in (("weight", "W"), ("bias", "b")):
        for end in "ih":
            whole = getattr(cell, f"{ours}_{end}h")
            v[f"{name}_{end}h"] = whole
            parts = whole.chunk(len(order)) if order else ()
            for gate, part in zip(order, parts, strict=True):
                v[f"{name}_{end}{gate}"] = part
    zero = torch.zeros(12, dtype=torch.float64)
    peepholes = getattr(cell, "weight_ch", zero).chunk(3)
    return v | dict(zip(("p_i", "p_f", "p_o"), peepholes, strict=True))


def gradients(v, last):
    """Of a random loss on all outputs and on the last state, by each symbol."""
    y_bar = torch.randn(len(TIMES) + 1, 4, dtype=torch.float64)
    y_bar[0] = 0
    ends = torch.randn(len(last), 4, dtype=torch.float64)
    loss = sum((y_bar[t] * v["h"][t]).sum() for t in TIMES)
    loss = loss + sum((end * part).sum() for end, part in zip(ends, last, strict=True))

    def of(tensor):
        if not tensor.requires_grad:
            return None
        kept = {"retain_graph": True, "allow_unused": True}
        return torch.autograd.grad(loss, tensor, **kept)[0]

    bars = {
        name: {t: of(each) for t, each in found.items()}
        if isinstance(found, dict)
        else of(found)
        for name, found in v.items()
    }
    return bars | {"y": dict(enumerate(y_bar)), "h_n": ends[0], "c_n": ends[-1]}


# Formulas, found.


def of_page(name, heading, *which):
    """The displayed formulas below a heading of a page: some, or all."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    (below,) = re.findall(rf"^(#+) {heading}.*?\n(.*?)(?=^#)", text, re.M | re.S)
    found = displayed(below[1])
    return [found[k] for k in which] if which else found


def displayed(text):
    return re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)


def of_object(thing):
    return displayed(inspect.getdoc(thing))


SOURCES = {
    "page rnn": ("rnn", of_page("rnn", "Equations")),
    "page rnn, backward": ("rnn", of_page("rnn", "The backward pass", 1, 2)),
    "page bptt": ("rnn", of_page("bptt", "Equations")),
    "page bptt, lstm": ("lstm", of_page("bptt", "LSTM and GRU", 0)),
    "page bptt, gru": ("gru", of_page("bptt", "LSTM and GRU", 1)),
    "page bptt, cho_gru": ("cho_gru", of_page("bptt", "LSTM and GRU", 2)),
    "page lstm": ("lstm", of_page("lstm", "Equations")),
    "page lstm, backward": ("lstm", of_page("lstm", "The backward pass")),
    "page gru": ("gru", of_page("gru", "Equations", 0)),
    "page gru, the other": ("cho_gru", of_page("gru", "Equations", 1)),
    "page gru, backward": ("gru", of_page("gru", "The backward pass")),
    "page 1997": ("lstm_1997", of_page("lstm_history", "The forms, side by side", 0)),
    "page peephole": (
        "peephole",
        of_page("lstm_history", "The forms, side by side", 1),
    ),
    "page coupled": ("coupled", of_page("lstm_history", "The forms, side by side", 2)),
    "page peephole, backward": (
        "peephole",
        of_page("lstm_history", "What a peephole does to the backward pass", 0, 1),
    ),
}
for KIND, (CELL, _, _) in KINDS.items():
    SOURCES[CELL.__name__] = (KIND, of_object(CELL))
for KIND in ("rnn", "lstm", "gru", "cho_gru"):
    for PLACE, WHAT in (
        (reference, "step"),
        (parallel, "forward"),
        (parallel, "backward"),
    ):
        FUNCTION = getattr(PLACE, f"{KIND}_{WHAT}")
        SOURCES[FUNCTION.__name__] = (KIND, of_object(FUNCTION))


def holds(kind, symbols, expression):
    """Whether a statement does, at the second of three steps."""
    values = values_of(kind)
    got = Reader(expression, values).whole(2)
    return all(torch.allclose(value(values, s, 2), got, atol=1e-10) for s in symbols)


def of_source(name):
    """The kind of a source, and its statements about what a cell has."""
    kind, formulas = SOURCES[name]
    made = [pair for formula in formulas for pair in statements(formula)]
    return kind, [pair for pair in made if not NO_SYMBOL & {*pair[0]}]


# The range of t, and the slope of the nonlinearity, of which there are two.
NO_SYMBOL = {"t", r"\phi'(a_t)"}


@pytest.mark.parametrize("name", SOURCES)
def test_every_statement_holds(name):
    """What cannot be read is an error too."""
    kind, made = of_source(name)
    assert made
    assert [pair for pair in made if not holds(kind, *pair)] == []


@pytest.mark.parametrize("name", SOURCES)
def test_every_sign_counts(name):
    """With one sign the other way round no statement holds any more."""
    kind, made = of_source(name)
    unnoticed = []
    for symbols, expression in made:
        for sign in re.finditer(r"(?<=\s)[+-](?=\s)", expression):
            other = {"+": "-", "-": "+"}[sign[0]]
            turned = expression[: sign.start()] + other + expression[sign.end() :]
            if holds(kind, symbols, turned):
                unnoticed.append((symbols, turned))
    assert unnoticed == []


@pytest.mark.parametrize("formula", [r"h_t = \frac{1}{2} c_t", "h_t = (c_t", "h_t = "])
def test_what_cannot_be_read_is_said(formula):
    symbols, *_ = formula.split(" = ")
    with pytest.raises((Unread, IndexError)):
        holds("lstm", [symbols], formula.removeprefix("h_t = "))


# Numbers of parameters, in the summary boxes: a formula for each of these, in order.
COUNTED = {
    "rnn": [seqref.RNN(3, 5)],
    "lstm": [seqref.LSTM(3, 5)],
    "gru": [seqref.GRU(3, 5)],
    "lstm_history": [seqref.CoupledGateLSTM(3, 5), seqref.PeepholeLSTM(3, 5)],
    "lstm_variants": [seqref.LayerNormLSTM(3, 5), seqref.ProjectedLSTM(3, 5, 2)],
}


@pytest.mark.parametrize("page", COUNTED)
def test_parameters_are_as_many_as_the_summary_says(page):
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    words = yaml.safe_load(text.split("---")[1])["summary"]["parameters"]
    formulas = re.findall(r"\$([^$]*\+[^$]*)\$", words)
    said = [counted(formula, I=3, D=5, P=2) for formula in formulas]
    assert said == [sum(p.numel() for p in each.parameters()) for each in COUNTED[page]]


def counted(formula, **sizes):
    product = re.sub(r"(?<=[A-Z\d)])\s*(?=[A-Z(])", "*", formula.replace("^", "**"))
    return eval(product, sizes)


def test_side_by_side_is_a_product():
    assert counted("4(D^2 + D I) + 18D", D=5, I=3) == 4 * (25 + 15) + 90
