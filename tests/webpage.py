"""A page as tests read it, and what in it would load something."""

from html.parser import HTMLParser

LOADING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href", "formaction", "background"}


class Page(HTMLParser):
    """A page as a browser would see it: its tags with attributes, and its text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())
