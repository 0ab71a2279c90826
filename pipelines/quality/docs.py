"""Data Docs in one self-contained page.

The sections are the ones that Great Expectations renders; the frame, its style and the overview are ours, since the original
frame loads its styles and scripts from content delivery networks and shows nothing readable without them.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.view.view import DefaultJinjaPageView
from jinja2 import ChoiceLoader, DictLoader

from pipelines.quality.expectations import Expectation
from pipelines.quality.validation import Finding, Validation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHOWN = 8
"""Pseudonyms of failing rows shown for one expectation; result.json has all of them."""

TABLES = {
    "classes": "Findings",
    "cohort": "Images to learn from",
    "labels": "Labels",
    "images": "Prepared images",
    "index": "Everything that was taken in",
}
"""The tables of `quality.tables.build` in the page's order, with their headings."""


def page(validation: Validation, counts: Mapping[str, int]) -> str:
    """The page as HTML, which loads nothing from anywhere; the same validation gives the same text.

    Args:
        validation: what was found.
        counts: numbers to show at the top, by their caption.
    """
    view = DefaultJinjaPageView()
    view.env.loader = ChoiceLoader([DictLoader({"radtransfer.html": PAGE}), *([view.env.loader] if view.env.loader else [])])
    numbers = count(1)
    view.env.filters["generate_html_element_uuid"] = lambda prefix=None: f"{prefix or ''}{next(numbers)}"
    return view.env.get_template("radtransfer.html").render(
        style=STYLE,
        counts=counts,
        errors=validation.failed("error"),
        warnings=validation.failed("warning"),
        overview=_overview(validation),
        sections=list(_sections(validation)),
        shown=SHOWN,
        renderer_type="ValidationResultsPageRenderer",
    )


def _overview(validation: Validation) -> dict[str, list[tuple[Expectation, Finding]]]:
    """The findings by table, failed ones first."""
    order = {("error", False): 0, ("warning", False): 1}
    groups: dict[str, list[tuple[Expectation, Finding]]] = {}
    for table, title in TABLES.items():
        found = [item for item in validation.findings if item.expectation.table == table]
        found.sort(key=lambda item: order.get((item.expectation.severity, item.passed), 2))
        groups[title] = [(item.expectation, item) for item in found]
    return groups


def _sections(validation: Validation) -> Iterator[dict[str, Any]]:
    """Great Expectations' own sections, table after table, without its run information (times and identifiers)."""
    for table in TABLES:
        document = ValidationResultsPageRenderer().render(validation.results[table]).to_json_dict()
        for number, section in enumerate(document["sections"][1:]):
            yield section | {"title": TABLES[table] if number == 0 else None}


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>radtransfer: quality of the data</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<header>
  <p class="kicker">radtransfer · Data Docs</p>
  <h1>Quality of the data</h1>
  <p class="verdict {{ 'bad' if errors else 'fair' if warnings else 'good' }}">
    {%- if errors %}Not passed: {{ errors | length }} expectation{{ 's' if errors | length > 1 }} of severity error failed. \
The pipeline stops here.
    {%- elif warnings %}Passed, with {{ warnings | length }} warning{{ 's' if warnings | length > 1 }} to look at.
    {%- else %}Passed.
    {%- endif %}</p>
  {% if errors or warnings %}<ul class="failed">{% for finding in errors + warnings %}
    <li class="{{ 'bad' if finding.expectation.severity == 'error' else 'fair' }}">{{ finding.expectation.severity }}: \
{{ finding.expectation.says }} <span>{{ finding.observed }}</span></li>{% endfor %}
  </ul>{% endif %}
  <dl class="counts">{% for caption, number in counts.items() %}
    <div><dt>{{ caption }}</dt><dd>{{ "{:,}".format(number) }}</dd></div>{% endfor %}
  </dl>
</header>
{% for title, items in overview.items() if items %}
<section>
  <h2>{{ title }}</h2>
  <table class="overview">
    <thead><tr><th>Result</th><th>What is expected</th><th>Severity</th><th>Observed</th></tr></thead>
    <tbody>
    {%- for expectation, finding in items %}
    {%- set tone = "good" if finding.passed else "bad" if expectation.severity == "error" else "fair" %}
    <tr class="{{ tone }}">
      <td><span class="mark {{ tone }}">{{ "passed" if finding.passed else "failed" }}</span></td>
      <td>{{ expectation.says }}
      {%- if finding.failing_rows %}
        <p class="rows">{% for name in finding.failing_rows[:shown] %}<code>{{ name }}</code> {% endfor %}
        {%- if finding.failing_rows | length > shown %}and {{ finding.failing_rows | length - shown }} more, \
all in result.json{% endif %}</p>
      {%- endif %}</td>
      <td>{{ expectation.severity }}</td>
      <td>{{ finding.observed }}</td>
    </tr>
    {%- endfor %}
    </tbody>
  </table>
</section>
{% endfor %}
<details class="ge">
<summary>Details, column by column, by Great Expectations {{ ge_version }}</summary>
{% for section in sections %}
{% if section.title %}<h2>{{ section.title }}</h2>{% endif %}
{% set section_loop = loop -%}
{% include 'section.j2' %}
{% endfor %}
</details>
<footer>Images, studies and patients go by their pseudonyms. Not a medical device.</footer>
</main>
</body>
</html>
"""

STYLE = """
:root { --ink: #1b2733; --soft: #5b6b7b; --line: #dde4ea; --paper: #fff; --ground: #f4f6f8; --good: #1a7f4b; --fair: #a86400;
  --bad: #b3261e; --good-ground: #e6f4ec; --fair-ground: #fdf1dc; --bad-ground: #fbe9e7; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 16px; }
h2 { font-size: 18px; margin: 32px 0 12px; }
h5, h6 { font-size: 14px; margin: 0; }
.kicker { color: var(--soft); margin: 0 0 4px; font-size: 13px; letter-spacing: .04em; text-transform: uppercase; }
.verdict { padding: 12px 16px; border-radius: 8px; border-left: 5px solid; font-size: 17px; font-weight: 600; margin: 0 0 20px; }
.verdict.good { color: var(--good); background: var(--good-ground); }
.verdict.fair { color: var(--fair); background: var(--fair-ground); }
.verdict.bad { color: var(--bad); background: var(--bad-ground); }
.failed { list-style: none; margin: -8px 0 20px; padding: 0 16px; font-weight: 600; }
.failed span { color: var(--soft); font-weight: 400; }
.failed .bad { color: var(--bad); } .failed .fair { color: var(--fair); }
.counts { display: flex; flex-wrap: wrap; gap: 12px; margin: 0; }
.counts div { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; min-width: 120px; }
.counts dt { color: var(--soft); font-size: 13px; }
.counts dd { margin: 0; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
table { width: 100%; border-collapse: collapse; background: var(--paper); }
th, td { padding: 8px 12px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-size: 13px; font-weight: 600; }
.overview { border: 1px solid var(--line); border-radius: 8px; border-spacing: 0; overflow: hidden; }
.overview td:first-child, .overview td:nth-child(3) { width: 92px; }
.overview td:last-child { width: 240px; color: var(--soft); font-variant-numeric: tabular-nums; }
.overview tr.bad td { background: var(--bad-ground); }
.overview tr.fair td { background: var(--fair-ground); }
.mark { font-size: 13px; font-weight: 600; white-space: nowrap; }
.mark.good { color: var(--good); } .mark.good::before { content: "✓ "; }
.mark.fair { color: var(--fair); } .mark.fair::before { content: "! "; }
.mark.bad { color: var(--bad); } .mark.bad::before { content: "✗ "; }
.rows { margin: 6px 0 0; color: var(--soft); font-size: 13px; }
code { font: 12px/1.4 ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; background: var(--ground); border-radius: 4px;
  padding: 1px 5px; overflow-wrap: anywhere; }
details.ge { margin-top: 40px; border-top: 1px solid var(--line); padding-top: 16px; }
summary { cursor: pointer; font-weight: 600; }
.ge-section { margin: 0 0 16px; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; background: var(--paper); }
.ge-section .alert { padding: 8px 12px; background: var(--ground); border-bottom: 1px solid var(--line); }
.ge-section td, .ge-section th { font-size: 14px; }
.ge-section > .row > div > table > tbody > tr > td:first-child { width: 64px; }
.ge-section td td { width: auto; }
.badge { background: var(--ground); border: 1px solid var(--line); border-radius: 4px; padding: 0 5px; }
.text-success::before { content: "✓"; color: var(--good); font-weight: 700; font-style: normal; }
.text-danger::before { content: "✗"; color: var(--bad); font-weight: 700; font-style: normal; }
.text-warning::before { content: "!"; color: var(--fair); font-weight: 700; font-style: normal; }
.ge-section td + td .text-danger::before, .ge-section td + td .text-warning::before { content: none; }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
@media print { body { background: var(--paper); } details.ge { display: none; } }
"""
