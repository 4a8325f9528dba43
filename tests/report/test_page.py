"""A page escapes what others wrote, needs nothing else, and leaves out what is empty."""

import re
import xml.etree.ElementTree
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from lcm_distill.report.charts import INK, Line, Panel, panel_svg
from lcm_distill.report.page import Section, charts, gallery, heading, image, numbered, page, paragraph, table

PANEL = Panel("steps", "distance", [Line([1, 2, 4], [3.0, 2.0, 1.5], [0, 0, 0], 0, "student <1>")], logarithmic_x=True)


class Text(HTMLParser):
    """The text and the attributes of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.text, self.tags, self.links = list[str](), list[str](), list[str]()
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_text_is_escaped_and_controls_are_shown():
    content = page("Run <b>", ["a & b"], [Section("S", [paragraph("<script>x</script>\x1b[2J")])])
    read = Text(content)
    assert "script" not in read.tags and "b" not in read.tags
    assert "<script>x</script>\\x1b[2J" in "".join(read.text) and "a & b" in read.text


def test_captions_of_galleries_and_headings_are_escaped():
    content = heading("<b>") + gallery([(b"", "a <i>ring</i>"), (b"", 'a "heart"')])
    text = Text(content).text
    assert text == ["<b>", "a <i>ring</i>", 'a "heart"'] and content.count("<figure>") == content.count("<img") == 2


def test_sections_without_parts_are_left_out():
    read = Text(page("Run", [], [Section("full", [paragraph("x")]), Section("empty", [])]))
    assert "full" in read.text and "empty" not in read.text


def test_nothing_is_loaded_from_elsewhere():
    content = page("Run", [], [Section("S", [charts("c", [PANEL, PANEL]), image(b"\x89PNG", "grid")])])
    links = Text(content).links
    assert links and all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not re.search(r"@import|url\((?!#)|<script|<link", content)


def test_references_within_charts_are_distinct():
    content = charts("c", [PANEL, PANEL])
    ids = re.findall(r'<clipPath id="([^"]+)"', content)
    assert len(ids) == len(set(ids)) > 1 and all(f"url(#{name})" in content for name in ids)


def test_a_chart_takes_the_colour_of_the_text_around_it():
    svg = panel_svg(PANEL, "c")
    assert "currentColor" in svg and INK not in svg
    assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")
    words = "".join(re.findall(r">([^<>]*)</text>", svg))
    assert "distance" in words and "student &lt;1&gt;" in words
    assert [tick for tick in ("1", "2", "5") if f">{tick}</text>" in svg] == ["1", "2"]  # plain numbers


def test_columns_of_text_are_to_the_left_and_numbers_have_separators():
    content = table(["model", "images", "note"], [["student", 30000, None], ["teacher", 1.5, "-"]])
    assert '<th class="text">model</th><th>images</th><th class="text">note</th>' in content
    assert '<td class="text">student</td><td>30,000</td><td class="text"></td>' in content


def test_a_column_is_of_numbers_only_if_all_its_cells_are():
    """Hashes and releases begin as numbers do; what is long gets room."""
    rows = [["6a03", "3.11.7", "98.9%", "-1.5e-05", "x" * 41], ["70", "2", "", "1,000", ""]]
    kinds = re.findall(r"<th( class[^>]*|)>", table(list("abcde"), rows))
    assert kinds == [' class="text"', ' class="text"', "", "", ' class="text long"']


def test_words_between_backticks_are_code_and_notes_are_numbered():
    assert paragraph("row `a<b` is") == "<p>row <code>a&lt;b</code> is</p>"
    assert numbered(["one", "<two>"]) == "<ol><li>one</li><li>&lt;two&gt;</li></ol>"


def test_a_wide_image_keeps_a_width_at_which_it_can_be_read():
    def png(width: int) -> bytes:
        Image.new("RGB", (width, 2)).save(content := BytesIO(), format="PNG")
        return content.getvalue()

    assert [re.findall(r"--least: (\d+)px", image(png(width), "grid")) for width in (300, 2000)] == [["300"], ["900"]]


def test_a_logarithmic_axis_of_numbers_has_ticks_where_points_are():
    x = [1.0, 2.0, 4.0, 50.0, 51.0]
    drawn = panel_svg(Panel("x", "y", [Line(x, x, [0] * 5, 0)], logarithmic_x=True), "ticks")
    (axis,) = re.findall(r'id="matplotlib.axis_1">(.*?)id="matplotlib.axis_2"', drawn, re.DOTALL)
    assert re.findall(r">([^<>]+)</text>", axis) == ["1", "2", "4", "50", "x"]


@pytest.mark.parametrize("steps", [[1.0], [1, 2], [1, 2, 3, 4], list(range(1, 301))])
def test_steps_have_ticks_at_whole_numbers_alone(steps):
    panel = Panel("step", "loss", [Line(steps, steps, [0] * len(steps), 0, marked=False)], whole_x=True)
    (axis,) = re.findall(r'id="matplotlib.axis_1">(.*?)id="matplotlib.axis_2"', panel_svg(panel, "steps"), re.DOTALL)
    *ticks, label = re.findall(r">([^<>]+)</text>", axis)
    assert ticks and all(tick.isdigit() for tick in ticks) and label == "step"


def test_the_legend_lies_below_the_label_of_an_axis_with_long_names():
    names = ["a", "a-name-of-moderate-length"]
    drawn = panel_svg(Panel("label", "y", [Line([0, 1], [1, 2], [0, 0], 0, "line")], ticks=names), "names")
    heights = {text: float(re.findall(rf'<text [^>]*y="([^"]*)"[^>]*>{text}<', drawn)[0]) for text in ("label", "line")}
    (whole,) = re.findall(r'viewBox="0 0 \S+ (\S+)"', drawn)
    assert heights["label"] + 10 < heights["line"] < float(whole)


def test_a_long_label_of_an_axis_is_broken():
    drawn = panel_svg(Panel("x", "distance to " * 6, [Line([1, 2], [1, 6], [0, 0], 0)]), "long")
    assert "distance to distance to distance to<" in drawn


def test_every_horizontal_line_is_in_the_legend():
    heights = [(f"teacher {number}", float(number)) for number in range(1, 7)]
    drawn = panel_svg(Panel("x", "y", [Line([1, 2], [1, 6], [0, 0], 0)], horizontals=heights), "many")
    assert all(f"teacher {number}<" in drawn for number in range(1, 7))
