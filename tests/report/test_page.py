"""The page: everything is in it, nothing comes from elsewhere, and no name can become markup."""

import base64
import re
from html.parser import HTMLParser

import pytest

from dfd_tune.report.formats import Table
from dfd_tune.report.page import Figure, Section, page

HOSTILE = """<script>alert("x")</script>'&amp;{{ 7 * 7 }}"""


class Reader(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "tags are closed in order"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data.strip())

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def figure(tmp_path):
    def made(title="Accuracy against λ", content=b"\x89PNG one"):
        files = (tmp_path / "f.png", tmp_path / "f.svg")
        files[0].write_bytes(content)
        files[1].write_text("<svg/>")
        return Figure(title, f"Caption of {title}", files)

    return made


def table(name="table1", **changes):
    parts = {"title": f"Title of {name}", "caption": "Caption.", "header": ("", "verdict"), "rows": (("a", "better"),)}
    return Table(name, **{**parts, **changes})


def test_every_table_and_figure_is_on_the_page_under_its_title(figure):
    tables = [table("table1"), table("cells-x", rows=(("a", "–"), ("b", "worse")))]
    section = Section("x", ("It came out.", "So it did."), (figure(), figure("What mattered")), ("Why: not.",))
    read = Reader(page("x", tables, [section]))
    assert read.open == []
    assert len(read.of("table")) == 2
    assert len(read.of("img")) == 2
    assert [image["alt"] for image in read.of("img")] == ["Accuracy against λ", "What mattered"]
    said = [
        "Title of table1",
        "Title of cells-x",
        "Caption of What mattered",
        "It came out.",
        "So it did.",
        "Why: not.",
    ]
    assert set(said) <= set(read.text)
    assert len(read.of("td")) == 2 + 4
    assert [cell.get("class") for cell in read.of("td")] == [None, "better", None, None, None, "worse"]


def test_a_link_leads_to_every_part_that_it_names(figure):
    sections = [Section(name, ("So.",), (figure(),), ()) for name in ("one", "two")]
    read = Reader(page("one and two", [table(), table("cells-one")], sections))
    places = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    links = [attributes["href"] for attributes in read.of("a")]
    assert len(set(places)) == len(places)
    assert sorted(links) == sorted(f"#{place}" for place in places)
    assert len(links) == 2 + 2 + 2


def test_the_picture_itself_is_in_the_page(figure):
    content = bytes(range(256))
    read = Reader(page("x", [], [Section("x", (), (figure(content=content),), ())]))
    kind, data = read.of("img")[0]["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data, validate=True) == content


def test_no_name_becomes_markup_or_a_template(figure):
    hostile = table("t", title=HOSTILE, caption=HOSTILE, header=(HOSTILE, "x"), rows=((HOSTILE, HOSTILE),))
    section = Section(HOSTILE, (HOSTILE,), (figure(HOSTILE),), (HOSTILE,))
    html = page(HOSTILE, [hostile], [section])
    read = Reader(html)
    assert "script" not in {tag for tag, _ in read.tags}
    assert read.text.count(HOSTILE) >= 9
    assert read.of("img")[0]["alt"] == HOSTILE
    assert "49" not in "".join(read.text)
    assert "<script" not in html


def loaded_from_elsewhere(html):
    """Every address that a browser would fetch when it shows the page."""
    read = Reader(html)
    addresses = [
        value
        for tag, attributes in read.tags
        for name, value in attributes.items()
        if name in ("src", "srcset", "data", "poster", "background", "action") or (name == "href" and tag != "a")
    ]
    addresses += re.findall(r"url\(\s*['\"]?([^)'\"]*)", html) + re.findall(r"@import[^;]*", html)
    fetching = {"script", "link", "iframe", "object", "embed", "base"}
    return [address for address in addresses if not address.startswith("data:")] + [
        tag for tag, _ in read.tags if tag in fetching
    ]


def test_the_page_loads_nothing_from_elsewhere(figure):
    html = page("x", [table()], [Section("x", ("So.",), (figure(),), ())])
    assert loaded_from_elsewhere(html) == []
    assert all(attributes["href"].startswith("#") for attributes in Reader(html).of("a"))
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", html)


@pytest.mark.parametrize(
    "line",
    [
        '<script src="https://x.org/a.js"></script>',
        '<link href="style.css">',
        "<style>@import 'https://x.org/a.css';</style>",
        "<p style=\"background: url('https://x.org/a.png')\"></p>",
        '<img src="//x.org/a.png">',
    ],
)
def test_what_would_be_loaded_is_found_by_that_test(line):
    # The test above would be worth nothing if it overlooked these.
    assert loaded_from_elsewhere(line) != []


def test_a_page_with_nothing_to_show_is_still_a_page():
    read = Reader(page("x", [], [Section("x", (), (), ("Accuracy against λ: nothing has finished.",))]))
    assert "Accuracy against λ: nothing has finished." in read.text
    assert read.of("html")[0]["lang"] == "en"
    assert {"charset": "utf-8"} in read.of("meta")
