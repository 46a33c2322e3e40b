r"""Diagrams of the cells as SVG, light and dark, with the code's names as labels.

`python -m sitekit.diagrams` writes every diagram, `python -m sitekit.diagrams --check`
says which file is missing or not current. The same source gives the same bytes.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as Tree

FOLDER = Path(__file__).parents[2] / "docs/assets/diagrams"
WIDTH = 420
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
# A drawn sign, and how the code writes it.
SIGNS = {"×": "*", "+": "+", "1 - z_t": "z_t"}

Point = tuple[float, float]


@dataclass(frozen=True)
class Scheme:
    """Colours of one colour scheme: text, lines, box, operation, path of the state."""

    name: str
    ink: str
    line: str
    box: str
    operation: str
    cell: str
    state: str


LIGHT = Scheme(
    "light", "#1b1f24", "#57606a", "#ffffff", "#fff4e5", "#f3f6f9", "#0065a3"
)
DARK = Scheme("dark", "#e6edf3", "#a3adb8", "#161b22", "#3a2c12", "#21272f", "#6cc0ef")


@dataclass
class Canvas:
    """An SVG drawing that grows shape by shape; lines lie below boxes."""

    scheme: Scheme
    height: int
    title: str
    description: str
    shapes: list[Tree.Element] = field(default_factory=list)

    def add(self, tag: str, text: str = "", **attributes: object) -> None:
        """Append one SVG element."""
        names = {key.replace("_", "-"): str(value) for key, value in attributes.items()}
        element = Tree.Element(tag, names)
        element.text = text or None
        self.shapes.append(element)

    def frame(self, left: float, top: float, right: float, bottom: float) -> None:
        """The outline of the cell."""
        size = {"width": right - left, "height": bottom - top}
        fill = {"fill": self.scheme.cell, "stroke": self.scheme.line}
        self.add("rect", x=left, y=top, rx=12, **size, **fill, stroke_dasharray="4 4")

    def line(self, *points: Point, state: bool = False, arrow: bool = True) -> None:
        """A line through `points` with right angles; the state's path is thicker."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        scheme, kind = self.scheme, "state" if state else "line"
        style = {"stroke": scheme.state if state else scheme.line, "fill": "none"}
        if arrow:
            style["marker-end"] = f"url(#{kind})"
        self.add("path", d=path, stroke_width=2.6 if state else 1.4, **style)

    def label(self, x: float, y: float, text: str, anchor: str = "middle") -> None:
        """Text with its baseline at (x, y)."""
        style = {"text_anchor": anchor, "fill": self.scheme.ink}
        self.add("text", text, x=f"{x:g}", y=f"{y:g}", **style)

    def box(self, x: float, y: float, *rows: str, width: float = 94) -> None:
        """A box of rows of text, centred at (x, y): the parameters of a product."""
        height = 16 * len(rows) + 10
        place = {"x": f"{x - width / 2:g}", "y": f"{y - height / 2:g}"}
        style = {"fill": self.scheme.box, "stroke": self.scheme.line, "rx": 4}
        self.add("rect", width=width, height=height, **place, **style)
        for row, text in enumerate(rows):
            self.label(x, y + 4.5 + 16 * row - 8 * (len(rows) - 1), text)

    def function(self, x: float, y: float, name: str, width: float = 62) -> None:
        """A function applied to each element, centred at (x, y)."""
        place = {"x": f"{x - width / 2:g}", "y": f"{y - 13:g}", "rx": 13}
        style = {"fill": self.scheme.operation, "stroke": self.scheme.ink}
        self.add("rect", width=width, height=26, **place, **style)
        self.label(x, y + 4.5, name)

    def sign(self, x: float, y: float, sign: str) -> None:
        """A sum or a product element by element, as a circle centred at (x, y)."""
        style = {"fill": self.scheme.operation, "stroke": self.scheme.ink}
        self.add("circle", cx=f"{x:g}", cy=f"{y:g}", r=11, **style)
        middle = {"text_anchor": "middle", "font_size": 17, "fill": self.scheme.ink}
        self.add("text", sign, x=f"{x:g}", y=f"{y + 6:g}", **middle)

    def text(self) -> str:
        """The whole file."""
        root = Tree.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {self.height}",
                "width": str(WIDTH),
                "height": str(self.height),
                "role": "img",
                "aria-labelledby": "title description",
                "font-family": MONO,
                "font-size": "12.5",
            },
        )
        Tree.SubElement(root, "title", {"id": "title"}).text = self.title
        Tree.SubElement(root, "desc", {"id": "description"}).text = self.description
        definitions = Tree.SubElement(root, "defs")
        heads = (("line", self.scheme.line, 7), ("state", self.scheme.state, 5))
        for name, colour, size in heads:
            definitions.append(_arrow_head(name, colour, size))
        root.extend(self.shapes)
        Tree.indent(root)
        return Tree.tostring(root, encoding="unicode") + "\n"


def _arrow_head(name: str, colour: str, size: int) -> Tree.Element:
    marker = Tree.Element(
        "marker",
        {
            "id": name,
            "viewBox": "0 0 10 10",
            "refX": "9",
            "refY": "5",
            "markerWidth": str(size),
            "markerHeight": str(size),
            "orient": "auto",
        },
    )
    Tree.SubElement(marker, "path", {"d": "M0 0 L10 5 L0 10 Z", "fill": colour})
    return marker


def rnn_cell(scheme: Scheme) -> str:
    """One step of the Elman network."""
    canvas = Canvas(
        scheme,
        236,
        "The RNN cell",
        "h_prev times weight_hh plus bias_hh and x_t times weight_ih plus bias_ih are "
        "added to h_pre; tanh of h_pre is h_t, which is both the output and the state "
        "that the next step gets as h_prev.",
    )
    canvas.frame(62, 46, 358, 186)
    canvas.line((10, 88), (78, 88), state=True)
    canvas.line((166, 88), (207, 88))
    canvas.line((218, 230), (218, 174))
    canvas.line((218, 131), (218, 100))
    canvas.line((230, 88), (279, 88))
    canvas.line((331, 88), (412, 88), state=True)
    canvas.line((344, 88), (344, 8), state=True)
    canvas.box(123, 88, "weight_hh", "bias_hh", width=88)
    canvas.box(218, 152, "weight_ih", "bias_ih", width=88)
    canvas.sign(218, 88, "+")
    canvas.function(306, 88, "tanh", width=50)
    canvas.label(8, 78, "h_prev", "start")
    canvas.label(228, 220, "x_t", "start")
    canvas.label(255, 78, "h_pre")
    canvas.label(412, 78, "h_t", "end")
    canvas.label(354, 22, "h_t", "start")
    return canvas.text()


_COLUMNS = {"f": 108, "i": 178, "g": 248, "o": 318}
_MIDDLE = 213


def lstm_cell(scheme: Scheme) -> str:
    """One step of the LSTM with a forget gate."""
    canvas = Canvas(
        scheme,
        500,
        "The LSTM cell",
        "The products of h_prev and of x_t are added to gates_pre, whose four blocks "
        "i_pre, f_pre, g_pre and o_pre give i_t, f_t and o_t by sigmoid and g_t by "
        "tanh. c_t is f_t times c_prev plus i_t times g_t. h_t is o_t times tanh of "
        "c_t. The path from c_prev to c_t has one product and one sum.",
    )
    canvas.frame(62, 30, 372, 450)
    _cell_state(canvas)
    _gates(canvas)
    _products(canvas)
    return canvas.text()


def lstm_1997_cell(scheme: Scheme) -> str:
    """One step of the memory cell of 1997, which has no forget gate."""
    canvas = Canvas(
        scheme,
        500,
        "The LSTM cell of 1997",
        "The products of h_prev and of x_t are added to gates_pre, whose three blocks "
        "i_pre, g_pre and o_pre give i_t and o_t by sigmoid and g_t by a scaled tanh. "
        "c_t is c_prev plus i_t times g_t. h_t is o_t times a scaled tanh of c_t. The "
        "path from c_prev to c_t has one sum and no product.",
    )
    canvas.frame(62, 30, 372, 450)
    _cell_state(canvas, forgets=False)
    _gates(canvas, "igo")
    _products(canvas)
    return canvas.text()


def _cell_state(canvas: Canvas, forgets: bool = True) -> None:
    """The row c_prev → c_t, and h_t below its right end."""
    f, o, middle = _COLUMNS["f"], _COLUMNS["o"], _MIDDLE
    if forgets:
        canvas.line((10, 66), (f - 12, 66), state=True)
        canvas.line((f + 11, 66), (middle - 12, 66), state=True)
    else:
        canvas.line((10, 66), (middle - 12, 66), state=True)
    canvas.line((middle + 11, 66), (412, 66), state=True)
    canvas.line((o, 66), (o, 92))
    canvas.line((o, 118), (o, 147))
    canvas.line((o + 11, 159), (412, 159), state=True)
    canvas.line((middle, 114), (middle, 78))
    canvas.function(o, 105, "tanh", width=50)
    if forgets:
        canvas.sign(f, 66, "×")
    for x, y, sign in ((middle, 66, "+"), (middle, 126, "×")):
        canvas.sign(x, y, sign)
    canvas.sign(o, 159, "×")
    canvas.label(8, 56, "c_prev", "start")
    canvas.label(266, 56, "c_t")
    canvas.label(412, 56, "c_t", "end")
    canvas.label(412, 149, "h_t", "end")


def _gates(canvas: Canvas, gates: str = "figo") -> None:
    """The columns from gates_pre up to the products that use them."""
    top = {"f": 78, "o": 171}
    for gate in gates:
        x = _COLUMNS[gate]
        turn = _MIDDLE - 12 if gate == "i" else _MIDDLE + 12
        canvas.line((x, 306), (x, 260))
        if gate in top:
            canvas.line((x, 234), (x, top[gate]))
        else:
            canvas.line((x, 234), (x, 126), (turn, 126))
        canvas.function(x, 247, "tanh" if gate == "g" else "sigmoid")
        canvas.label(x + 6, 287, f"{gate}_pre", "start")
        canvas.label(x + 6, 212, f"{gate}_t", "start")
    ends = (_COLUMNS[gates[0]], 306), (_COLUMNS["o"], 306)
    canvas.line(*ends, arrow=False)


def _products(canvas: Canvas) -> None:
    """The sum of the two products, which makes gates_pre."""
    middle = _MIDDLE
    canvas.line((10, 352), (72, 352), state=True)
    canvas.line((161, 352), (middle - 12, 352))
    canvas.line((middle, 494), (middle, 434))
    canvas.line((middle, 402), (middle, 364))
    canvas.line((middle, 341), (middle, 306), arrow=False)
    canvas.box(117, 352, "weight_hh", "bias_hh", width=88)
    canvas.box(middle, 413, "weight_ih", "bias_ih", width=88)
    canvas.sign(middle, 352, "+")
    canvas.label(8, 342, "h_prev", "start")
    canvas.label(middle + 8, 328, "gates_pre", "start")
    canvas.label(middle + 10, 484, "x_t", "start")


def stacked(scheme: Scheme) -> str:
    """Two layers over three steps."""
    canvas = Canvas(
        scheme,
        300,
        "Two stacked layers over three steps",
        "At each of three steps x goes up into the lower layer, its output through "
        "dropout into the upper layer, whose output is y. Each layer hands its state "
        "to itself at the next step, to the right; no state goes up or down.",
    )
    upper, middle, lower = 82, 150, 218
    for x in (90, 210, 330):
        canvas.line((x, lower + 62), (x, lower + 14))
        canvas.line((x, lower - 13), (x, middle + 14))
        canvas.line((x, middle - 13), (x, upper + 14))
        canvas.line((x, upper - 13), (x, upper - 62))
        canvas.function(x, middle, "dropout", width=66)
        canvas.label(x + 10, lower + 58, "x", "start")
        canvas.label(x + 10, upper - 44, "y", "start")
    for row in (upper, lower):
        for left, right in ((8, 62), (118, 182), (238, 302), (358, 412)):
            canvas.line((left, row), (right, row), state=True)
        for x in (90, 210, 330):
            canvas.box(x, row, "layer", width=54)
        for x in (150, 270):
            canvas.label(x, row - 9, "state")
    return canvas.text()


def bidirectional(scheme: Scheme) -> str:
    """Two layers over three steps, one from each end."""
    canvas = Canvas(
        scheme,
        290,
        "A bidirectional layer over three steps",
        "At each of three steps x goes up into two boxes, and cat joins what leaves "
        "them to y. In the lower row, ahead, the state runs to the right, from first "
        "to last. In the upper row, behind, it runs to the left, from second to "
        "earliest. Nothing leads from one row to the other.",
    )
    top, upper, lower, split = 56, 122, 192, 238
    columns = (90, 210, 330)
    for x in columns:
        canvas.line((x, 286), (x, split), arrow=False)
        for side, row in ((x - 26, lower), (x + 26, upper)):
            canvas.line((x, split), (side, split), (side, row + 14))
            canvas.line((side, row - 13), (side, top + 14))
        canvas.line((x, top - 13), (x, 8))
        canvas.function(x, top, "cat", width=84)
        canvas.label(x + 10, 278, "x", "start")
        canvas.label(x + 10, 22, "y", "start")
    for left, right in ((8, 36), (92, 156), (212, 276), (332, 412)):
        canvas.line((left, lower), (right, lower), state=True)
    for left, right in ((8, 88), (144, 208), (264, 328), (384, 412)):
        canvas.line((right, upper), (left, upper), state=True)
    for x in columns:
        canvas.box(x - 26, lower, "ahead", width=54)
        canvas.box(x + 26, upper, "behind", width=54)
    canvas.label(6, lower - 20, "first", "start")
    canvas.label(412, lower - 9, "last", "end")
    canvas.label(414, upper - 20, "second", "end")
    canvas.label(2, upper - 9, "earliest", "start")
    return canvas.text()


_GRU_COLUMNS = {"z": 117, "r": 205, "n": 310}


def gru_cell(scheme: Scheme) -> str:
    """One step of the GRU that resets after the recurrent product."""
    canvas = Canvas(
        scheme,
        540,
        "The GRU cell, reset after the product",
        "z_t and r_t are sigmoids of sums of a product with x_t and a product with "
        "h_prev. n_hidden, the third block of the product with h_prev, is multiplied "
        "by r_t and added to n_in; tanh gives n_t. h_t is z_t times h_prev plus "
        "1 - z_t times n_t.",
    )
    n = _GRU_COLUMNS["n"]
    _gru_update(canvas)
    _gru_gates(canvas, n, 335)
    canvas.line((n, 420), (n, 277))
    canvas.line((205, 292), (205, 265), (n - 12, 265))
    canvas.line((n, 254), (n, 237))
    canvas.sign(n, 265, "×")
    canvas.label(n - 6, 330, "n_hidden", "end")
    canvas.label(250, 258, "r_t")
    canvas.label(341, 330, "n_in", "start")
    return canvas.text()


def cho_gru_cell(scheme: Scheme) -> str:
    """One step of the GRU that resets before the recurrent product."""
    canvas = Canvas(
        scheme,
        540,
        "The GRU cell, reset before the product",
        "z_t and r_t are sigmoids of sums of a product with x_t and a product with "
        "h_prev. h_prev is multiplied by r_t before its product for the candidate, "
        "which is added to n_in; tanh gives n_t. h_t is z_t times h_prev plus 1 - z_t "
        "times n_t.",
    )
    n = _GRU_COLUMNS["n"]
    _gru_update(canvas)
    _gru_gates(canvas, 205, 366)
    canvas.line((10, 516), (n, 516), (n, 342), state=True)
    canvas.line((205, 292), (205, 268), (244, 268), (244, 330), (n - 12, 330))
    canvas.line((n, 319), (n, 300))
    canvas.line((n, 256), (n, 237))
    canvas.sign(n, 330, "×")
    canvas.box(n, 278, "weight_hh", "bias_hh", width=88)
    canvas.label(8, 506, "h_prev", "start")
    canvas.label(224, 261, "r_t")
    canvas.label(360, 352, "n_in", "end")
    return canvas.text()


def _dot(canvas: Canvas, x: float, y: float) -> None:
    """Where a line branches; lines that cross have none."""
    canvas.add("circle", cx=f"{x:g}", cy=f"{y:g}", r=3, fill=canvas.scheme.line)


def _gru_update(canvas: Canvas) -> None:
    """The row h_prev → h_t, z_t up to it and n_t with its factor."""
    canvas.frame(62, 30, 384, 500)
    z, n = _GRU_COLUMNS["z"], _GRU_COLUMNS["n"]
    canvas.line((10, 66), (z - 12, 66), state=True)
    canvas.line((z + 11, 66), (n - 12, 66), state=True)
    canvas.line((n + 11, 66), (412, 66), state=True)
    canvas.line((z, 292), (z, 78))
    canvas.line((z, 140), (n - 12, 140))
    canvas.line((n, 214), (n, 198))
    canvas.line((n, 172), (n, 152))
    canvas.line((n, 129), (n, 78))
    _dot(canvas, z, 140)
    for x, y, sign in ((z, 66, "×"), (n, 66, "+"), (n, 140, "×"), (n, 225, "+")):
        canvas.sign(x, y, sign)
    canvas.function(n, 185, "tanh", width=50)
    canvas.label(8, 56, "h_prev", "start")
    canvas.label(412, 56, "h_t", "end")
    canvas.label(z + 6, 230, "z_t", "start")
    canvas.label(n + 6, 166, "n_t", "start")
    canvas.label((z + n) / 2, 132, "1 - z_t")


def _gru_gates(canvas: Canvas, hidden_end: float, n_in: float) -> None:
    """Both products, the sums for z and r, and the line of n_in."""
    z, r, n = (_GRU_COLUMNS[key] for key in "zrn")
    canvas.line((10, 470), (72, 470), state=True)
    canvas.line((250, 534), (250, 492))
    canvas.line((z, 449), (z, 362))
    canvas.line((z, 420), (hidden_end, 420), arrow=False)
    canvas.line((250, 449), (250, 385), arrow=False)
    canvas.line((z + 24, 385), (n_in, 385), arrow=False)
    canvas.line((r, 420), (r, 362))
    for x in (z, r):
        canvas.line((x + 24, 385), (x + 24, 350), (x + 12, 350))
        canvas.line((x, 339), (x, 319))
        canvas.function(x, 305, "sigmoid")
        canvas.sign(x, 350, "+")
    canvas.line((n_in, 385), (n_in, 225), (n + 12, 225))
    _dot(canvas, z, 420)
    if hidden_end > r:
        _dot(canvas, r, 420)
    _dot(canvas, r + 24, 385)
    _dot(canvas, 250, 385)
    canvas.box(z, 470, "weight_hh", "bias_hh", width=88)
    canvas.box(250, 470, "weight_ih", "bias_ih", width=88)
    canvas.label(8, 460, "h_prev", "start")
    canvas.label(260, 535, "x_t", "start")


DIAGRAMS: dict[str, Callable[[Scheme], str]] = {
    "cho_gru_cell": cho_gru_cell,
    "gru_cell": gru_cell,
    "bidirectional": bidirectional,
    "lstm_1997_cell": lstm_1997_cell,
    "lstm_cell": lstm_cell,
    "rnn_cell": rnn_cell,
    "stacked": stacked,
}


def drawings() -> dict[str, str]:
    """The text of every file by its name."""
    return {
        f"{name}.{scheme.name}.svg": draw(scheme)
        for name, draw in DIAGRAMS.items()
        for scheme in (LIGHT, DARK)
    }


def write(folder: Path = FOLDER) -> list[Path]:
    """Write every diagram, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in drawings().items():
        _write_whole(folder / name, text)
    return [folder / name for name in drawings()]


def outdated(folder: Path = FOLDER) -> list[str]:
    """Names of files that are missing or differ from what the source draws."""
    return [
        name
        for name, text in drawings().items()
        if not (folder / name).is_file()
        or (folder / name).read_bytes() != text.encode()
    ]


def _write_whole(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode())
        # mkstemp makes the file private; the site's files are for everybody.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the diagrams, or with `--check` compare them with the files."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments) not in ([], ["--check"]):
        print("usage: python -m sitekit.diagrams [--check]", file=sys.stderr)
        return 2
    if not arguments:
        for path in write():
            print(path.name)
        return 0
    stale = outdated()
    for name in stale:
        print(f"not current: docs/assets/diagrams/{name}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
