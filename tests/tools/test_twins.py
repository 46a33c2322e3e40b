r"""One figure on a page is a light and a dark drawing."""

import re

import markdown
import pytest

from sitekit.page import PageError
from sitekit.twins import svg_size

SVG = '<svg xmlns="http://www.w3.org/2000/svg" {}><path d="M0 0"/></svg>'


def draw(site, name: str, attributes: str = 'width="30" height="20"') -> None:
    for scheme in ("light", "dark"):
        site.write(f"docs/{name}.{scheme}.svg", SVG.format(attributes))


def convert(site, text: str) -> str:
    site.write("docs/a/page.md", text)
    ours = {"sitekit.twins": {"root": str(site.root)}}
    md = markdown.Markdown(extensions=["attr_list", *ours], extension_configs=ours)
    return md.convert(text)


def images(html: str) -> list[dict[str, str]]:
    return [
        dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        for tag in re.findall("<img.*?>", html)
    ]


def test_both_drawings_with_size_and_the_same_text(small_site):
    draw(small_site, "_data/run.curve")
    html = convert(small_site, "![A curve.](../_data/run.curve.svg){ .twin }")
    light, dark = images(html)
    assert light["src"] == "../_data/run.curve.light.svg#only-light"
    assert dark["src"] == "../_data/run.curve.dark.svg#only-dark"
    for image in (light, dark):
        assert image["alt"] == "A curve."
        assert image["loading"] == "lazy"
        assert (image["width"], image["height"]) == ("30", "20")
        assert "class" not in image
    assert html.startswith('<p><span class="twin"><img')


def test_other_classes_stay_and_text_around_too(small_site):
    draw(small_site, "a/f")
    html = convert(small_site, "Before ![A.](f.svg){ .twin .wide #one } after.")
    assert [i["class"] for i in images(html)] == ["wide", "wide"]
    assert re.sub("<[^>]*>", "", html) == "Before  after."


def test_an_id_is_given_once(small_site):
    draw(small_site, "a/f")
    html = convert(small_site, "![A.](f.svg){ .twin #one }")
    assert html.count('id="one"') == 1


def test_an_ordinary_image_is_left_alone(small_site):
    html = convert(small_site, "![A.](photo.png)")
    assert html == '<p><img alt="A." src="photo.png" /></p>'


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="432pt" height="180pt"', (576, 240)),
        ('width="1in" height="25.4mm"', (96, 96)),
        ('viewBox="0 0 640 360"', (640, 360)),
        ('width="100%" height="100%" viewBox="0,0,64.4,36"', (64, 36)),
    ],
)
def test_size_in_css_pixels(tmp_path, attributes, size):
    path = tmp_path / "f.svg"
    path.write_text(SVG.format(attributes))
    assert svg_size(path) == size


def test_no_alternative_text(small_site):
    draw(small_site, "a/f")
    with pytest.raises(PageError, match=r"^docs/a/page\.md:3: .*alternative text"):
        convert(small_site, "Text.\n\n![](f.svg){ .twin }")


@pytest.mark.parametrize("missing", ["light", "dark"])
def test_a_missing_drawing(small_site, missing):
    draw(small_site, "a/f")
    (small_site.root / f"docs/a/f.{missing}.svg").unlink()
    expected = rf"^docs/a/page\.md:1: .* no {missing} drawing: docs/a/f\.{missing}\.svg"
    with pytest.raises(PageError, match=expected):
        convert(small_site, "![A.](f.svg){ .twin }")


def test_a_picture_of_another_kind(small_site):
    with pytest.raises(PageError, match=r"docs/a/page\.md:1: .*name\.svg.*f\.png"):
        convert(small_site, "![A.](f.png){ .twin }")


@pytest.mark.parametrize("content", ["not xml", SVG.format("")])
def test_a_drawing_without_a_size(small_site, content):
    for scheme in ("light", "dark"):
        small_site.write(f"docs/a/f.{scheme}.svg", content)
    with pytest.raises(PageError, match=r"docs/a/page\.md:1: docs/a/f\.light\.svg: "):
        convert(small_site, "![A.](f.svg){ .twin }")
