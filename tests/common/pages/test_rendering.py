"""What all pages share."""

import math

from experiments_manager.common.pages.rendering import LAYOUT, render_page, short, shown


def page(tmp_path, content, **values):
    template = tmp_path / "page.html"
    template.write_text(f'{{% extends "layout.html" %}}{{% block content %}}{content}{{% endblock %}}')
    return render_page(template, title="A <title>", **values)


def test_a_page_has_the_one_style_sheet_and_names_nothing_outside(tmp_path):
    text = page(tmp_path, "<p>{{ value }}</p>", value="<b>")
    assert (LAYOUT / "page.css").read_text().strip() in text
    assert "<h1>A &lt;title&gt;</h1>" in text
    assert "<p>&lt;b&gt;</p>" in text
    assert "http:" not in text
    assert "https:" not in text


def test_data_for_a_script_cannot_end_it(tmp_path):
    text = page(tmp_path, "<script>{{ data | script }}</script>", data={"name": "</script>"})
    assert text.count("</script>") == 1


def test_a_picture_that_cannot_be_read_has_no_address(tmp_path):
    text = page(tmp_path, "[{{ gone | picture }}] {{ there | picture }}", gone=tmp_path / "no.png", there=b"\x89PNG")
    assert "[] data:image/png;base64,iVBORw==" in text


def test_values_are_written_for_cells():
    assert [short(value) for value in (None, math.nan, 0.123456, "x" * 50)] == ["—", "—", "0.1235", "x" * 39 + "…"]
    assert [shown(value) for value in (None, 0.12345678, [1, "a"], True)] == ["—", "0.123457", '[1, "a"]', "True"]
