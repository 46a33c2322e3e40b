r"""The one error that is about a page: it names the page and the line."""


class PageError(Exception):
    r"""Something on a page cannot be accepted.

    Args:
        page: Path of the page, relative to the repository root.
        line: Line on the page, counted from 1.
        message: What is wrong and, where there is one, the fix.
    """

    def __init__(self, page: str, line: int, message: str) -> None:
        super().__init__(f"{page}:{line}: {message}")
        self.page = page
        self.line = line
        self.message = message
