r"""Make the site's fonts from the npm packages that carry the originals.

    npm install inter-ui @fontsource/jetbrains-mono @fontsource/stix-two-math
    PYTHONPATH=tools python -m sitekit.subset_fonts node_modules docs/assets/fonts

The results are committed, so a build of the site needs neither npm nor this module.
It needs `fonttools` and `brotli`.
"""

import argparse
import io
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from fontTools.varLib import instancer

_INTER = "inter-ui"
_MONO = "@fontsource/jetbrains-mono"
_STIX = "@fontsource/stix-two-math"
_TEXT_FEATURES = ["kern", "mark", "mkmk", "ccmp", "locl", "calt", "tnum"]
# Without `calt`: ligatures such as => would hide what was typed.
_CODE_FEATURES = ["mark", "ccmp"]
_MATH_FEATURES = ["kern", "mark", "ccmp", "ssty", "ss04", "dtls", "flac"]

# Latin, raised and lowered digits, arrows and the signs that prose uses.
_TEXT = [
    (0x0020, 0x007E), (0x00A0, 0x017F), (0x02C6, 0x02DD), (0x0300, 0x0304),
    (0x0308, 0x0308), (0x2010, 0x2026), (0x202F, 0x202F), (0x2030, 0x203A),
    (0x2044, 0x2044), (0x2070, 0x2099), (0x20AC, 0x20AC), (0x2122, 0x2122),
    (0x2190, 0x2199), (0x2202, 0x2202), (0x220F, 0x2212), (0x221A, 0x221E),
    (0x2248, 0x2248), (0x2260, 0x2265), (0x2713, 0x2713), (0x03B1, 0x03C9),
]  # fmt: skip

# What formulas on these pages use: (first, last) code points, both included.
_MATH = [
    (0x0020, 0x007E), (0x00A0, 0x00B7), (0x00D7, 0x00D7), (0x00F7, 0x00F7),
    (0x02C6, 0x02DD), (0x0300, 0x030C), (0x0332, 0x0338), (0x0391, 0x03C9),
    (0x03D1, 0x03F5), (0x2000, 0x200B), (0x2010, 0x201D), (0x2022, 0x2026),
    (0x2032, 0x2037), (0x203B, 0x2044), (0x2061, 0x2064), (0x20D7, 0x20D7),
    (0x2102, 0x2135), (0x2190, 0x21AE), (0x21BC, 0x21D4), (0x2200, 0x223C),
    (0x2240, 0x22C6), (0x22EE, 0x22F1), (0x2308, 0x230B), (0x2322, 0x2323),
    (0x23B4, 0x23B5), (0x23DC, 0x23DF), (0x25A1, 0x25A1), (0x25B3, 0x25CB),
    (0x2605, 0x2605), (0x266D, 0x266F), (0x2713, 0x2713), (0x27C2, 0x27C2),
    (0x27E6, 0x27E9), (0x27F5, 0x27FC), (0x2A00, 0x2A02), (0x2A7D, 0x2A7E),
    # Alphabets: bold, italic, bold italic, script, double-struck, sans,
    # Greek in bold and italic, bold digits. No Fraktur.
    (0x1D400, 0x1D4CF), (0x1D538, 0x1D56B), (0x1D5A0, 0x1D5D3), (0x1D6A4, 0x1D76F),
    (0x1D7CE, 0x1D7D7),
]  # fmt: skip


def _points(ranges: list[tuple[int, int]]) -> set[int]:
    return {p for first, last in ranges for p in range(first, last + 1)}


_WANTED = {
    _INTER: (_points(_TEXT), _TEXT_FEATURES),
    _MONO: (_points(_TEXT), _CODE_FEATURES),
    _STIX: (_points(_MATH), _MATH_FEATURES),
}


def _narrow_roots(font: TTFont) -> None:
    """Give every form of the root sign the width of the small one.

    Chromium reserves the width of the widest form for every root, which leaves a gap
    of almost half an em after each root of a single letter.
    """
    glyphs, widths = font["glyf"], font["hmtx"]
    small = font.getBestCmap()[0x221A]
    variants = font["MATH"].table.MathVariants
    index = variants.VertGlyphCoverage.glyphs.index(small)
    forms = variants.VertGlyphConstruction[index]
    names = {v.VariantGlyph for v in forms.MathGlyphVariantRecord} - {small}
    names |= {part.glyph for part in forms.GlyphAssembly.PartRecords}
    target = widths[small][0]
    for name in names:
        glyph, factor = glyphs[name], target / widths[name][0]
        glyph.coordinates.scale((factor, 1))
        glyph.coordinates.toInt()
        glyph.recalcBounds(glyphs)
        widths[name] = (target, glyph.xMin)


def _subset(font: TTFont, out: Path, points: set[int], features: list[str]) -> None:
    # Through a file once: the subsetter cannot take an instance made in memory.
    buffer = io.BytesIO()
    font.flavor = None
    font.save(buffer)
    buffer.seek(0)
    font = TTFont(buffer)
    options = subset.Options()
    options.flavor = "woff2"
    options.layout_features = features
    options.hinting = False
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=points & set(font.getBestCmap()))
    subsetter.subset(font)
    subset.save_font(font, str(out), options)
    print(f"{out}: {out.stat().st_size / 1000:.1f} kB")


def _licence(source: Path, out: Path) -> None:
    """Copy the licence without the trailing blanks that some have."""
    lines = source.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line.rstrip() for line in lines).strip() + "\n"
    out.write_text(text, encoding="utf-8")


def make(packages: Path, out: Path) -> None:
    """Write the four fonts and their licences into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    jobs = [
        ("inter", _INTER, "variable/InterVariable", {"wght": (400, 700), "opsz": 14}),
        (
            "inter-italic",
            _INTER,
            "variable/InterVariable-Italic",
            {"wght": 400, "opsz": 14},
        ),
        ("jetbrains-mono", _MONO, "files/jetbrains-mono-latin-400-normal", None),
        ("stix-two-math", _STIX, "files/stix-two-math-latin-400-normal", None),
    ]
    for name, package, file, limits in jobs:
        font = TTFont(packages / package / f"{file}.woff2")
        if limits:
            font = instancer.instantiateVariableFont(font, limits)
        if package == _STIX:
            _narrow_roots(font)
        _subset(font, out / f"{name}.woff2", *_WANTED[package])
        if name != "inter-italic":
            source = next((packages / package).glob("LICENSE*"))
            _licence(source, out / f"LICENSE-{name}.txt")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("packages", type=Path, help="the node_modules folder")
    parser.add_argument("out", type=Path, help="where the woff2 files go")
    arguments = parser.parse_args()
    make(arguments.packages, arguments.out)


if __name__ == "__main__":
    main()
