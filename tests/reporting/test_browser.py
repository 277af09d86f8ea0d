"""The page in a browser: it draws, answers to pointer and buttons, fits a phone, and knows the dark."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proctool.reporting.experiment import load_experiment
from proctool.reporting.page import page
from proctool.reporting.report import build_report
from tests.reporting.made import substitutive

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]

_PROBE = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  const found = { errors: window.failures, width: document.documentElement.scrollWidth, inner: window.innerWidth };
  const loss = document.querySelector("#loss"), lines = () => loss.querySelectorAll("path[stroke-width='2.4']").length;
  const button = (name) => [...loss.querySelectorAll("button")].find((each) => each.textContent === name);
  found.lines = lines();
  found.bands = loss.querySelectorAll("path.band").length;
  const picture = loss.querySelector("svg"), box = picture.getBoundingClientRect();
  picture.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width * .6, clientY: box.top + 50 }));
  found.tip = loss.querySelector(".tip").innerText;
  button("set-20k").click();
  found.withoutArm = lines();
  button("set-20k").click();
  button("seed 0").click();
  button("seed 1").click();
  found.seedsLeft = loss.querySelectorAll("path.band").length;
  found.sections = [...document.querySelectorAll("section[id]")].filter((each) => !each.hidden).map((each) => each.id);
  found.ticks = ticks(-.38, .1, 6);
  found.paper = getComputedStyle(document.body).backgroundColor;
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
}, 300));
</script>
"""


def look(folder: Path, *flags: str, width: int = 1000) -> dict[str, Any]:
    """Open the page in a window of `width` and say what is found there."""
    assert BROWSER is not None
    text = page(build_report(load_experiment(substitutive(folder / "exchange"))))
    watched = "<script>window.failures = []; window.onerror = (what) => { failures.push(String(what)); };</script>"
    text = text.replace("<head>", f"<head>{watched}", 1).replace("</body>", f"{_PROBE}</body>")
    # A frame, as a browser's own window does not get as narrow as a phone.
    frame = f'<iframe style="width:{width}px;height:3000px;border:0" srcdoc="{html.escape(text, quote=True)}"></iframe>'
    collect = """<script>setInterval(() => {
      const seen = document.querySelector("iframe").contentDocument.body.textContent;
      if (seen.startsWith("FOUND")) document.body.textContent = seen;
    }, 100);</script>"""
    (folder / "frame.html").write_text(f"<!doctype html><body>{frame}{collect}", encoding="utf-8")
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
         "--window-size=1200,3000", "--virtual-time-budget=5000", *flags, "--dump-dom", str(folder / "frame.html")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said = re.search(r"FOUND(.*)END", done.stdout, flags=re.S)
    assert said is not None, done.stderr[-1000:]
    return json.loads(html.unescape(said[1]))  # type: ignore[no-any-return]


def test_curves_are_drawn_and_answer(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found["errors"] == []
    assert found["sections"] == ["loss", "savings", "substitution"]
    assert (found["lines"], found["withoutArm"]) == (3, 2)
    assert (found["bands"], found["seedsLeft"]) == (4, 0)
    assert found["ticks"] == [-0.3, -0.2, -0.1, 0, 0.1]  # zero is exact: it has a line of its own
    assert re.search(r"\d+k tokens", found["tip"])
    assert re.search(r"set-20k\s*\d\.\d{3}", found["tip"])


def test_a_phone_needs_no_scrolling_sideways(tmp_path: Path) -> None:
    found = look(tmp_path, width=390)
    assert found["errors"] == []
    assert found["inner"] == 390
    assert found["width"] <= 390


def test_the_dark_is_known(tmp_path: Path) -> None:
    (tmp_path / "light").mkdir()
    (tmp_path / "dark").mkdir()
    light, dark = look(tmp_path / "light"), look(tmp_path / "dark", "--blink-settings=preferredColorScheme=0")
    brightness = [sum(map(int, re.findall(r"\d+", each["paper"])[:3])) for each in (light, dark)]
    assert brightness[0] > 600
    assert brightness[1] < 150
