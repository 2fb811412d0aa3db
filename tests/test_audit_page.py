"""The page of an audit, as a browser shows it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from torch import nn

import krratio as kr
from audit_models import Residual, linear_bottleneck

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

HOSTILE = "<script>alert(1)</script>"


def page(tmp_path: Path, appended: str = "") -> Path:
    model = nn.Sequential()
    model.add_module(HOSTILE, linear_bottleneck())
    wide = [nn.Conv2d(10, 32, 1), *(Residual() for _ in range(20))]
    model.add_module("tail", nn.Sequential(nn.Unflatten(1, (10, 1, 1)), *wide))
    path = tmp_path / "page.html"
    kr.audit(model, (3, 8, 8), name="<b>&'\"").to_html(path)
    if appended:
        text = path.read_text(encoding="utf-8").replace("</body>", f"{appended}</body>")
        path.write_text(text, encoding="utf-8")
    return path


def chromium(path: Path, *options: str) -> str:
    profile = f"--user-data-dir={path.parent / 'profile'}"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [profile, "--virtual-time-budget=2000", *options, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_the_page_escapes_every_name_and_needs_no_network(tmp_path):
    path = page(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<b>" not in text
    assert "http" not in text
    assert re.findall(r"\s(?:src|href)=", text) == []
    assert list(tmp_path.iterdir()) == [path]  # nothing half written beside it


def test_columns_without_content_are_left_out(tmp_path):
    text = page(tmp_path).read_text(encoding="utf-8")
    blocks, _, layers = (re.findall(r"<th[^>]*>([^<]*)", part) for part in text.split("<h2>")[2:5])
    assert {"covering", "excess"} <= set(blocks)
    assert not {"covering", "excess", "fan in rank"} & set(layers)


PROBE = """<script>
var said=[], heads=document.querySelectorAll('th');
var head=Array.from(heads).filter(h=>h.textContent==='params').pop();
function order(){
  return Array.from(head.closest('table').tBodies[0].rows)
    .map(row=>+row.cells[head.cellIndex].dataset.value);
}
head.click(); said.push(order().join(' '));
head.dispatchEvent(new KeyboardEvent('keydown',{key:'Enter'})); said.push(order().join(' '));
said.push(document.scripts.length, document.querySelectorAll('table').length);
said.push(document.documentElement.scrollWidth<=window.innerWidth, window.innerWidth);
said.push(document.querySelector('td').textContent);
var note=document.createElement('pre'); note.id='said'; note.textContent=said.join('|');
document.body.appendChild(note);
</script>"""


@browser
def test_a_browser_sorts_the_tables_runs_no_name_and_scrolls_no_page_sideways(tmp_path):
    dom = chromium(page(tmp_path, PROBE), "--window-size=400,900", "--dump-dom")
    said = re.search(r'<pre id="said">(.*?)</pre>', dom, re.DOTALL).group(1).split("|")
    down, up = ([int(n) for n in part.split()] for part in said[:2])
    assert len(set(down)) > 3
    assert down == sorted(down, reverse=True)
    assert up == down[::-1] == sorted(up)
    assert said[2] == "2"  # the page's own script and the probe
    assert said[3] == "3"
    assert (said[4], int(said[5]) <= 500) == ("true", True)
    assert said[6] == "&lt;script&gt;alert(1)&lt;/script&gt;"


@browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_draws_the_page(tmp_path, width):
    picture = tmp_path / "page.png"
    chromium(page(tmp_path), f"--window-size={width},900", f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
