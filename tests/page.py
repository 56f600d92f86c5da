"""A report as a browser would read it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """What a browser would make of the report: its scripts, figures, attributes and text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.figures, self.text = [], [], [], ""
        self._open = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._open = self.figures if dict(attrs).get("type") else self.scripts
            self._open.append("")
        elif tag == "style":
            self._open = [""]

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._open = None

    def handle_data(self, data):
        if self._open is None:
            self.text += data
        else:
            self._open[-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]
