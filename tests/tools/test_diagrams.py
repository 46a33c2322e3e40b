r"""The diagrams of the cells: labels are the code's names, files are current."""

import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sitekit import diagrams

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
FILES = sorted(diagrams.drawings())
REFERENCE = ROOT / "src/seqref/ops/fused_recurrence/reference.py"
# Each diagram draws one function: of the reference, or of a layer.
FUNCTIONS = {
    "bidirectional": "forward",
    "cho_gru_cell": "cho_gru_step",
    "gru_cell": "gru_step",
    "rnn_cell": "rnn_step",
    "lstm_1997_cell": "lstm_1997_step",
    "lstm_cell": "lstm_step",
    "stacked": "_run",
}
SOURCES = {
    "forward": ROOT / "src/seqref/recurrent/bidirectional.py",
    "_run": ROOT / "src/seqref/recurrent/stacked.py",
    "lstm_1997_step": ROOT / "src/seqref/recurrent/lstm_history.py",
}
MUST_SHOW = {
    "bidirectional": "x ahead behind first last second earliest cat y",
    "cho_gru_cell": (
        "x_t h_prev weight_ih weight_hh bias_ih bias_hh n_in sigmoid tanh "
        "r_t z_t n_t h_t"
    ),
    "gru_cell": (
        "x_t h_prev weight_ih weight_hh bias_ih bias_hh n_in n_hidden sigmoid tanh "
        "r_t z_t n_t h_t"
    ),
    "rnn_cell": "x_t h_prev weight_ih weight_hh bias_ih bias_hh h_pre tanh h_t",
    "lstm_cell": (
        "x_t h_prev c_prev weight_ih weight_hh bias_ih bias_hh gates_pre "
        "i_pre f_pre g_pre o_pre sigmoid tanh i_t f_t g_t o_t c_t h_t"
    ),
    "lstm_1997_cell": (
        "x_t h_prev c_prev weight_ih weight_hh bias_ih bias_hh gates_pre "
        "i_pre g_pre o_pre sigmoid tanh i_t g_t o_t c_t h_t"
    ),
    "stacked": "x y layer state dropout",
}


def root_of(name: str) -> ElementTree.Element:
    return ElementTree.fromstring((diagrams.FOLDER / name).read_text("utf-8"))


def labels(name: str) -> list[str]:
    return [element.text or "" for element in root_of(name).iter(f"{SVG}text")]


def body_of(function: str) -> str:
    """Source of one function, without its docstring."""
    text = SOURCES.get(function, REFERENCE).read_text("utf-8")
    match = re.search(rf"^ *def {function}\(.*?(?=^ *def |\Z)", text, re.M | re.S)
    assert match is not None
    return re.sub(r'r""".*?"""', "", match.group(), flags=re.S)


def names_in(source: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*|[*+]", source))


def test_files_are_current() -> None:
    assert diagrams.outdated() == []


def test_the_folder_holds_nothing_else() -> None:
    found = {path.name for path in diagrams.FOLDER.glob("*.svg")}
    # The map of concepts is drawn by another program.
    assert found - {"lineage.light.svg", "lineage.dark.svg"} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_each_label_is_a_name_in_the_source(name: str) -> None:
    known = names_in(body_of(FUNCTIONS[name.split(".")[0]]))
    shown = {diagrams.SIGNS.get(label, label) for label in labels(name)}
    assert shown - known == set()


@pytest.mark.parametrize("name", FILES)
def test_shows_every_quantity_of_the_step(name: str) -> None:
    missing = set(MUST_SHOW[name.split(".")[0]].split()) - set(labels(name))
    assert missing == set()


def test_a_wrong_label_would_be_found() -> None:
    known = names_in(body_of("lstm_step"))
    assert "i_t" in known
    assert {"input_gate", "C_t", "h_{t-1}"} & known == set()


@pytest.mark.parametrize("diagram", sorted(diagrams.DIAGRAMS))
def test_twins_differ_only_in_colour(diagram: str) -> None:
    def grey(scheme: str) -> str:
        text = (diagrams.FOLDER / f"{diagram}.{scheme}.svg").read_text("utf-8")
        return re.sub(r"#[0-9a-f]{6}", "#colour", text)

    assert grey("light") == grey("dark")
    assert (diagrams.FOLDER / f"{diagram}.light.svg").read_text("utf-8") != (
        diagrams.FOLDER / f"{diagram}.dark.svg"
    ).read_text("utf-8")


@pytest.mark.parametrize("name", FILES)
def test_has_title_and_description(name: str) -> None:
    root = root_of(name)
    assert root.get("role") == "img"
    ids = (root.get("aria-labelledby") or "").split()
    texts = {e.get("id"): e.text or "" for e in root if e.get("id")}
    assert len(ids) == 2
    assert all(len(texts[each]) > 5 for each in ids)
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]


@pytest.mark.parametrize("name", FILES)
def test_text_is_readable_on_a_phone(name: str) -> None:
    root = root_of(name)
    # A page of 390 CSS pixels leaves about 358 for the figure.
    shrink = 358 / float(root.get("width", "0"))
    assert float(root.get("font-size", "0")) * min(shrink, 1) >= 10.5


@pytest.mark.parametrize("name", FILES)
def test_no_text_overlaps_another_or_leaves_the_picture(name: str) -> None:
    root = root_of(name)
    size = float(root.get("font-size", "0"))
    boxes = []
    for element in root.iter(f"{SVG}text"):
        own = float(element.get("font-size", size))
        # A character of a monospaced face is 0.6 em wide.
        width = 0.61 * own * len(element.text or "")
        shift = {"start": 0, "middle": width / 2, "end": width}
        left = float(element.get("x", "")) - shift[element.get("text-anchor", "start")]
        base = float(element.get("y", ""))
        boxes.append((left, base - 0.8 * own, left + width, base + 0.2 * own))
    edge = [float(root.get(key, "0")) for key in ("width", "height")]
    for left, top, right, bottom in boxes:
        assert left >= 0
        assert top >= 0
        assert right <= edge[0]
        assert bottom <= edge[1]
    for a, b in combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, (a, b)


@pytest.mark.parametrize(
    "scheme", [diagrams.LIGHT, diagrams.DARK], ids=lambda s: s.name
)
def test_contrast(scheme: diagrams.Scheme) -> None:
    page = {"light": "#ffffff", "dark": "#1e2129"}[scheme.name]
    for ground in (page, scheme.cell, scheme.box, scheme.operation):
        assert contrast(scheme.ink, ground) >= 4.5
    for ground in (page, scheme.cell):
        assert contrast(scheme.line, ground) >= 3
        assert contrast(scheme.state, ground) >= 3


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours as the WCAG define it."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_of_black_and_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_check_finds_a_stale_and_a_missing_file(tmp_path: Path) -> None:
    assert len(diagrams.write(tmp_path)) == len(FILES)
    assert diagrams.outdated(tmp_path) == []
    changed = tmp_path / FILES[0]
    changed.write_text(changed.read_text("utf-8").replace("cat", "Cat"), "utf-8")
    (tmp_path / FILES[1]).unlink()
    assert sorted(diagrams.outdated(tmp_path)) == FILES[:2]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in diagrams.write(tmp_path)}
    second = {path.name: path.read_bytes() for path in diagrams.write(tmp_path)}
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_command(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert diagrams.main(["--check"]) == 0
    monkeypatch.setattr(diagrams.outdated, "__defaults__", (tmp_path,))
    assert diagrams.main(["--check"]) == 1
    assert "not current: docs/assets/diagrams/rnn_cell.light.svg" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr(diagrams.write, "__defaults__", (tmp_path,))
    assert diagrams.main([]) == 0
    assert diagrams.main(["--check"]) == 0
    assert diagrams.main(["--chekc"]) == 2
