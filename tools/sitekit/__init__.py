r"""The site's own Python-Markdown extensions and generators.

Each module is one extension (`sitekit.data`, `sitekit.citations`, ...) and works
in MkDocs, in Zensical and in a bare `markdown.Markdown`. None is a MkDocs plugin or
hook. What a page got wrong is raised as `sitekit.page.PageError`, whose message
begins with the file and the line.
"""
