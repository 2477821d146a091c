"""Reads HTML as strictly as a validator: what is not closed in its turn is an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "source"})
"""Elements without an end."""


@dataclass(kw_only=True)
class Element:
    """A start tag, with the text and the elements within it."""

    name: str
    attributes: dict[str, str]
    parent: Element | None
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, name: str) -> Iterator[Element]:
        """All elements of that name within it, and itself."""
        if self.name == name:
            yield self
        for child in self.children:
            yield from child.all(name)

    def everything(self) -> Iterator[Element]:
        """Itself, and all elements within it."""
        yield self
        for child in self.children:
            yield from child.everything()

    def words(self) -> str:
        """The text of it and of all elements within it."""
        return self.text + "".join(child.words() for child in self.children)


class Document(HTMLParser):
    """The elements of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element(name="", attributes={}, parent=None)
        self._at = self.root
        self.feed(html)
        self.close()
        assert self._at is self.root, f"<{self._at.name}> was never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Descend into it, unless it has no end."""
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(name=tag, attributes={name: value or "" for name, value in attrs}, parent=self._at)
        self._at.children.append(element)
        if tag not in VOID:
            self._at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element of SVG that holds nothing."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        """Must be that of the element that was opened last."""
        assert self._at.name == tag, f"</{tag}> closes <{self._at.name}>"
        assert self._at.parent is not None
        self._at = self._at.parent

    def handle_data(self, data: str) -> None:
        """Belongs to the element that was opened last."""
        self._at.text += data
