r"""--update-output rewrites what differs and leaves the rest of a page alone."""

import textwrap

import pytest

from pageblocks.errors import PageError
from pageblocks.extract import blocks_in
from pageblocks.output import difference, matches, rewrite

PAGE = """\
# Page

=== "tab"

    ```python
    print("one\\n\\n    two")
    ```

    Words between.

    ``` { .text .output }
    old
    lines
    of output
    ```

> ```python
> print(2)
> ```
>
> after the quote's block

```python
print("kept 0.123456")
```

``` { .text .output }
kept 0.1235
```

```python
print("```")
```
"""
UPDATED = """\
# Page

=== "tab"

    ```python
    print("one\\n\\n    two")
    ```

    Words between.

    ``` { .text .output }
    one

        two
    ```

> ```python
> print(2)
> ```
>
> ``` { .text .output }
> 2
> ```
>
> after the quote's block

```python
print("kept 0.123456")
```

``` { .text .output }
kept 0.1235
```

```python
print("```")
```

```` { .text .output }
```
````
"""


def test_update_rewrites_tabs_and_quotes_and_adds_fences(tmp_path):
    path = tmp_path / "x.md"
    path.write_text(PAGE)
    blocks = blocks_in(PAGE, "docs/x.md", tmp_path)
    printed = ["one\n\n    two\n", "2\n", "kept 0.123456\n", "```\n"]
    pairs = zip(blocks, printed, strict=True)
    wrong = {b: text for b, text in pairs if difference(b, text) is not None}
    assert [b.index for b in wrong] == [0, 1, 3]
    rewrite(path, PAGE, wrong)
    assert path.read_text() == UPDATED
    again = blocks_in(UPDATED, "docs/x.md", tmp_path)
    assert [difference(b, t) for b, t in zip(again, printed, strict=True)] == [None] * 4


def test_update_refuses_a_page_that_changed_meanwhile(tmp_path):
    path = tmp_path / "x.md"
    path.write_text(PAGE + "more\n")
    blocks = blocks_in(PAGE, "docs/x.md", tmp_path)
    with pytest.raises(PageError, match="changed while its blocks ran"):
        rewrite(path, PAGE, {blocks[0]: "x"})
    assert path.read_text() == PAGE + "more\n"


def test_update_refuses_output_from_an_included_file(tmp_path):
    (tmp_path / "out.txt").write_text("1\n")
    source = (
        '```python\nprint(2)\n```\n\n``` { .text .output }\n--8<-- "out.txt"\n```\n'
    )
    path = tmp_path / "x.md"
    path.write_text(source)
    (block,) = blocks_in(source, "docs/x.md", tmp_path)
    with pytest.raises(PageError, match=r"docs/x.md:5: .*included file"):
        rewrite(path, source, {block: "2\n"})


def test_update_refuses_output_that_would_include_a_file(tmp_path):
    source = "```python\nprint(2)\n```\n\n``` { .text .output }\n1\n```\n"
    path = tmp_path / "x.md"
    path.write_text(source)
    (block,) = blocks_in(source, "docs/x.md", tmp_path)
    for line in ('--8<-- "x.txt"', "  --8<--"):
        with pytest.raises(PageError, match=r"docs/x.md:5: .*include a file"):
            rewrite(path, source, {block: f"one\n{line}\n"})
    assert path.read_text() == source


def test_update_with_carriage_returns_matches_what_it_wrote(tmp_path):
    source = "```python\nprint()\n```\n"
    path = tmp_path / "x.md"
    path.write_text(source)
    (block,) = blocks_in(source, "docs/x.md", tmp_path)
    printed = "10 %\r20 %\rdone\r\n"
    rewrite(path, source, {block: printed})
    assert b"\r" not in path.read_bytes()
    (again,) = blocks_in(path.read_text(), "docs/x.md", tmp_path)
    assert again.output.text == "10 %\n20 %\ndone"
    assert difference(again, printed) is None


def test_update_keeps_the_line_ends_of_the_page(tmp_path):
    path = tmp_path / "x.md"
    written = b"# A\r\n\r\n```python\r\nprint(2)\r\n```\r\n"
    path.write_bytes(written)
    source = path.read_text()
    (block,) = blocks_in(source, "docs/x.md", tmp_path)
    rewrite(path, source, {block: "2\n"})
    added = b"\r\n``` { .text .output }\r\n2\r\n```\r\n"
    assert path.read_bytes() == written + added


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("1", "1\n"),
        ("a\nb", "a  \nb\n\n"),
        ("0.33", "0.3333"),
        ("0.33", "0.335"),
        ("-0.00", "0.0000001"),
        ("1.2e-05", "1.2345e-05"),
        ("1.50", "1.5"),
        ("tensor([0.1235, 2.])", "tensor([0.12346, 2.])"),
        ("loss 0.5 after 10 steps", "loss 0.49999 after 10 steps"),
        ("a ... z", "a\nb\nc z"),
        ("...\nend", "first\nsecond\nend"),
        ("start ...", "start"),
        ("<object at 0x...>", "<object at 0x7f3a>"),
        ("x=1.5, y=2", "x=1.5, y=2"),
        ("[1., ..., 3.]", "[1., ..., 3.]"),
        ("2.14.0", "2.14.0"),
        ("torch 2.14.0, 0.33 s", "torch 2.14.0, 0.3333 s"),
        ("2.14.0+cpu", "2.14.0+cpu"),
        ("10 %\n20 %", "10 %\r20 %\r"),
        ("a\nb", "a\r\nb\r\n"),
    ],
)
def test_matches(shown, printed):
    assert matches(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("1", "2"),
        ("1", "1.2"),
        ("0.33", "0.34"),
        ("0.3334", "0.3333"),
        ("0.33", "0.336"),
        ("0.33333", "0.3333"),
        ("1.2e-05", "1.3e-05"),
        ("a  b", "a b"),
        ("a\nb", "a b"),
        ("lstm2", "lstm3"),
        ("2.11.0", "2.13.0"),
        ("2.1.0", "2.14.0"),
        ("2.1.0", "2.1.00"),
        ("python 3.1.2", "python 3.12.2"),
        ("10.1.0.17", "10.14.0.17"),
        ("-2.1.0", "-2.14.0"),
        ("torch-2.1.0", "torch-2.14.0"),
        ("1.50.0 s", "1.5.0 s"),
        ("2024.1.02", "2024.12.02"),
        ("a b", "a\rb"),
        ("a ... z", "a b"),
        ("a", "a\nb"),
        ("a\nb", "a"),
        ("", "a"),
        ("nan", "inf"),
        ("True", "False"),
        ("-1.5", "1.5"),
    ],
)
def test_does_not_match(shown, printed):
    assert not matches(shown, printed)


def test_first_line_that_differs(tmp_path):
    source = textwrap.dedent("""\
        ```python
        print()
        ```

        ``` { .text .output }
        a
        0.5

        c
        ```
        """)
    (block,) = blocks_in(source, "docs/x.md", tmp_path)
    assert difference(block, "a\n0.5\n\nc\n") is None
    assert difference(block, "a\n0.6\n\nc\n")[0] == 7
    assert difference(block, "a\n0.5\n\nd\n")[0] == 9
    assert difference(block, "a\n0.5\n")[0] == 9
    assert difference(block, "")[0] == 5
