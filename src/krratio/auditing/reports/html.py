"""An audit as one self-contained HTML file: no network, every name escaped."""

import math
from html import escape
from typing import Any

from krratio.auditing.audit import CONVENTIONS, Audit

__all__ = ["html"]

_SHOWN = "name K R ratio redundancy also kind fan_in_rank params naive covering excess macs".split()
_TEXT = ("name", "kind", "redundancy", "also")
_COLOURS = {
    "none": "#0072b2",
    "exact": "#d55e00",
    "branch only": "#e69f00",
    "approximate": "#cc79a7",
    "bound only": "#56b4e9",
    "saturated": "#009e73",
    "unknown": "#555555",
}
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:75rem;padding:1rem;color:#1a1a1a}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2rem}
ul.shares{list-style:none;padding:0}
.wide{overflow-x:auto}table{border-collapse:separate;border-spacing:0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .45rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}
th{cursor:pointer;background:#f4f4f4}th:focus{outline:2px solid #0072b2;outline-offset:-2px}
th:hover{background:#e4e4e4}th[aria-sort=descending]::after{content:" \\2193"}
th[aria-sort=ascending]::after{content:" \\2191"}
td.text,th.text{text-align:left}
td:first-child{white-space:normal;overflow-wrap:break-word;min-width:9rem;max-width:24rem}
td:first-child,th:first-child{position:sticky;left:0}td:first-child{background:#fff}
.note{color:#444}svg text{font:11px system-ui,sans-serif}
.dot{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.4em}
@media(max-width:600px){td:first-child{min-width:7rem;max-width:9rem}}
"""
_MEANING = (
    "K: channels put out. R: channels that enter the last layer of a block, the largest rank that "
    "a layer's weight can have, the rank that can cross a linear run. Naive: entries of the "
    "weights, of a block with those that read its K channels. Covering: what its low-rank format "
    "needs to be described; excess: the difference. Click a heading to sort."
)
_SCRIPT = """
document.querySelectorAll('th').forEach(function(head){
  function sort(){
    var table=head.closest('table'),body=table.tBodies[0],i=head.cellIndex;
    var down=head.getAttribute('aria-sort')!=='descending';
    table.querySelectorAll('th').forEach(function(h){h.removeAttribute('aria-sort')});
    head.setAttribute('aria-sort',down?'descending':'ascending');
    var rows=Array.from(body.rows);
    rows.sort(function(a,b){
      var x=a.cells[i].dataset.value,y=b.cells[i].dataset.value;
      if(x===''||y==='')return (x==='')-(y==='');
      var order=head.classList.contains('text')?x.localeCompare(y):x-y;
      return down?-order:order;
    });
    rows.forEach(function(row){body.appendChild(row)});
  }
  head.addEventListener('click',sort);
  head.addEventListener('keydown',function(e){
    if(e.key==='Enter'||e.key===' '){e.preventDefault();sort()}
  });
});
"""


def html(found: Audit) -> str:
    """The report as one page: totals, a picture of channels, and a sortable table per level."""
    title = escape(found.name)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>K/R audit of {title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>K/R audit of {title}</h1>",
        f"<p>{found.parameters:,} parameters, {found.macs:,} multiply-adds.</p>",
        _shares(found),
        _picture(found),
        f"<p class='note'>{escape(_MEANING)}</p>",
    ]
    for level, heading in (("block", "Blocks"), ("chain", "Linear runs"), ("layer", "Layers")):
        rows = [row for row in found.rows if row["level"] == level]
        parts.append(f"<h2>{heading} ({len(rows)})</h2>")
        parts.append(_table(rows) if rows else "<p class='note'>None.</p>")
    parts += [_not_understood(found), f"<p class='note'>{escape(CONVENTIONS)}</p>"]
    return "".join([*parts, f"<script>{_SCRIPT}</script></body></html>\n"])


def _shares(found: Audit) -> str:
    items = "".join(
        f"<li><span class='dot' style='background:{_COLOURS.get(name, '#bbbbbb')}'></span>"
        f"{share:.1%} {escape(name)}</li>"
        for name, share in found.shares.items()
    )
    return f"<p>Share of the parameters by class of their block:</p><ul class='shares'>{items}</ul>"


def _picture(found: Audit) -> str:
    """Blocks in order: a grey bar for R, a coloured one for K, on one scale."""
    rows = [row for row in found.rows if row["level"] == "block"]
    if not rows:
        return ""
    step, high = 26, 150
    largest = max(max(row["K"], row["R"]) for row in rows)
    bars = []
    for i, row in enumerate(rows):
        for j, (value, colour) in enumerate(
            ((row["R"], "#999999"), (row["K"], _COLOURS[row["redundancy"]]))
        ):
            tall = max(1.0, high * value / largest)
            bars.append(
                f"<rect x='{50 + i * step + 10 * j}' y='{high + 20 - tall:.1f}' width='9' "
                f"height='{tall:.1f}' fill='{colour}'><title>{escape(row['name'])}: "
                f"{'RK'[j]} = {value}, K/R = {row['ratio']:.3g}, {escape(row['redundancy'])}"
                "</title></rect>"
            )
    wide = 60 + len(rows) * step
    axis = (
        f"<text x='44' y='26' text-anchor='end'>{largest:,}</text>"
        f"<text x='44' y='{high + 20}' text-anchor='end'>0</text>"
        f"<line x1='48' x2='{wide}' y1='{high + 20}' y2='{high + 20}' stroke='#999999'/>"
        f"<text x='50' y='{high + 38}'>blocks in order: R (grey), K (coloured by class)</text>"
    )
    return (
        "<h2>Channels</h2><div class='wide'><svg role='img' aria-label='K and R of every block' "
        f"width='{max(wide, 330)}' height='{high + 48}'>{axis}{''.join(bars)}</svg></div>"
    )


def _table(rows: list[dict[str, Any]]) -> str:
    shown = [name for name in _SHOWN if _says_something(name, rows)]
    head = "".join(
        f"<th tabindex='0'{_class(name)}>{escape(name.replace('_', ' '))}</th>" for name in shown
    )
    body = "".join(
        "<tr>" + "".join(_cell(name, row[name]) for name in shown) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='wide'>{table}</div>"


def _says_something(name: str, rows: list[dict[str, Any]]) -> bool:
    """Whether a column is neither empty nor a copy of R."""
    values = [row[name] for row in rows]
    if name == "fan_in_rank" and values == [row["R"] for row in rows]:
        return False
    return not all(value == "" or (name not in _TEXT and math.isnan(value)) for value in values)


def _class(name: str) -> str:
    return " class='text'" if name in _TEXT else ""


def _cell(name: str, value: Any) -> str:
    if name in _TEXT:
        text = escape(str(value))
        spaced = text.replace("_", " ") if name == "kind" else text.replace(".", ".<wbr>")
        return f"<td class='text' data-value='{text}'>{spaced}</td>"
    if math.isnan(value):
        return "<td data-value=''></td>"
    shown = f"{value:.3g}" if name == "ratio" else f"{value:,.0f}"
    return f"<td data-value='{value!r}'>{shown}</td>"


def _not_understood(found: Audit) -> str:
    if not found.not_understood:
        return "<p>Every operation was understood.</p>"
    items = "".join(
        f"<li>{escape(operator)} in {escape(module or 'the network itself')}</li>"
        for module, operator in found.not_understood
    )
    return f"<h2>Not understood</h2><ul>{items}</ul>"
