"""The page of a run: well-formed, whole in itself, and it shows what the result says."""

import dataclasses
import html.parser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyvirt
from pyvirt.errors import InvalidTypeError, MissingDependencyError
from pyvirt.report import run_plots
from pyvirt.report.run_files import save
from pyvirt.report.run_html import run_html
from pyvirt.report.run_tables import run_host_table, run_vm_table
from report.made_results import make_result

VOID = {"meta", "link", "br", "img", "input", "hr"}
EVIL = (
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x>',
    "$x^2$",
    "_hidden",
    "日本",
    "&",
)


@pytest.fixture(scope="module")
def result():
    return make_result()


@pytest.fixture(scope="module")
def page(result):
    pytest.importorskip("matplotlib")
    return run_html(result)


class Reader(html.parser.HTMLParser):
    """Checks that elements are nested, and collects what is in them."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.ids, self.texts = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def test_the_page_is_well_formed(page):
    reader = read(page)
    assert page.startswith("<!DOCTYPE html>")
    assert len(set(reader.ids)) == len(reader.ids)
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("svg") == 6
    assert tags.count("h1") == 1
    for tag, attributes in reader.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
            assert "viewbox" in attributes
            assert "width" not in attributes


def outside(page):
    """What a page asks for that is not in it."""
    reader = read(page)
    found = []
    for tag, attributes in reader.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                inside = value.startswith("#") and value[1:] in reader.ids
                found += [] if inside or value.startswith("data:") else [(tag, name, value)]
            assert not name.startswith("on")
        assert tag not in ("script", "iframe", "object", "embed", "base")
    found += [one for one in re.findall(r"url\(([^)]*)\)", page) if one[1:] not in reader.ids]
    return found + re.findall(r"@import.*", page)


def test_nothing_is_loaded(page):
    assert outside(page) == []
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page


def test_what_is_loaded_would_be_seen(page):
    for bad in ('<img src="x.png">', "<p style='background: url(http://a/b)'></p>"):
        assert outside(page.replace("</body>", f"{bad}</body>"))


def test_names_are_text(result):
    pytest.importorskip("matplotlib")
    page = run_html(make_result(names=EVIL, hosts=("<b>", "h&1", "_h2")))
    assert outside(page) == []
    texts = "".join(read(page).texts)
    for name in EVIL:
        assert name in texts
    assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)", "", page)


def test_numbers_are_those_of_the_tables(page, result):
    texts = read(page).texts
    for row in run_host_table(result):
        assert f"{row['util_%']:,.1f}" in texts
        assert f"{row['least_free_mib']:,.1f}" in texts
    for row in run_vm_table(result):
        assert f"{row['%RDY']:,.1f}" in texts
    assert f"{result.energy_kwh:.3f} kWh" in texts
    assert "ab" * 32 in texts


def test_the_same_result_gives_the_same_page(page):
    done = subprocess.run(
        [sys.executable, "-c", AGAIN],
        capture_output=True,
        text=True,
        check=True,
        env=environment(PYTHONHASHSEED="1"),
    )
    assert done.stdout == page


AGAIN = """
import sys
from report.made_results import make_result
from pyvirt.report.run_html import run_html
sys.stdout.reconfigure(encoding="utf-8", newline="")
sys.stdout.write(run_html(make_result()))
"""


def environment(**more):
    here = Path(__file__).parents[1]
    root = Path(pyvirt.__file__).parents[1]
    return os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{root}"} | more


def many(count):
    """The result with its hosts, so many times."""
    result = make_result()
    hosts = {column: np.tile(values, (count, 1)) for column, values in result.hosts.items()}
    return dataclasses.replace(
        result,
        hosts=hosts,
        host_names=tuple(f"h{i}" for i in range(3 * count)),
        power_watts=np.tile(result.power_watts, (count, 1)),
        capacity_ns=np.tile(result.capacity_ns, count),
    )


def test_many_hosts(tmp_path):
    pytest.importorskip("matplotlib")
    result = many(20)
    page = run_html(result)
    assert outside(page) == []
    assert page.count("data:image/png") >= 1
    (axes, _) = run_plots.utilisation_plot(result).axes
    (image,) = axes.images
    used = np.where(result.hosts["on_ns"] > 0, 100 * result.utilisation, np.nan)
    assert np.array_equal(np.ma.filled(image.get_array(), np.nan), used, equal_nan=True)
    _, below = run_plots.memory_plot(result).axes
    assert len(below.get_yticks()) == 8


def test_lines_are_the_samples(result):
    pytest.importorskip("matplotlib")
    (axes,) = run_plots.utilisation_plot(result).axes
    steps = [patch for patch in axes.patches if hasattr(patch, "get_data")]
    for h, patch in enumerate(steps[:3]):
        values, edges, _ = patch.get_data()
        on = result.hosts["on_ns"][h] > 0
        assert np.array_equal(values[on], 100 * result.utilisation[h, on])
        assert np.isnan(values[~on]).all()
        assert edges[-1] == result.duration_ns / 60e9
    assert axes.get_xlabel() == "time (min)"
    (axes,) = run_plots.power_plot(result).axes
    tops = [patch.get_data().values for patch in axes.patches if hasattr(patch, "get_data")]
    assert np.allclose(tops[2], result.hosts["joules"].sum(axis=0) / 20)
    assert axes.get_ylabel() == "power (W)"


def test_bars_are_the_sums(result):
    pytest.importorskip("matplotlib")
    (axes,) = run_plots.waiting_plot(result, most=3).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["build", "desk", "old"]
    ends = np.zeros(3)
    for bars in axes.containers:
        ends += [bar.get_width() for bar in bars]
    rows = {row["vm"]: row for row in run_vm_table(result)}
    for name, end in zip(names, ends, strict=True):
        row = rows[name]
        assert end == pytest.approx((row["%RDY"] + row["%CSTP"] + row["%SWPWT"]) / row["vcpus"])
    (axes,) = run_plots.overhead_plot(result).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["BT, shadow (2)", "HWMMU, nested (3)", "PV, direct (1)"]
    execution = [bar.get_width() for bar in axes.containers[0]]
    assert execution == pytest.approx([(11.8 + 20.1) / 2, (1.2 + 2.1 + 0.8) / 3, 3.4])


def test_states_of_memory_are_drawn(result):
    pytest.importorskip("matplotlib")
    _, below = run_plots.memory_plot(result).axes
    lengths = {}
    for collection in below.collections:
        if collection.get_label().startswith("state"):
            widths = [np.ptp(path.vertices[:, 0]) for path in collection.get_paths()]
            lengths[collection.get_label()] = sum(widths)
    state, on = result.hosts["memory_state"][0], result.hosts["on_ns"][0] > 0
    for number, word in ((0, "high"), (1, "clear"), (4, "low")):
        minutes = (on & (state == number)).sum() / 3
        assert lengths[f"state {word}"] == pytest.approx(minutes)


def test_long_runs_are_thinned():
    """Means over several samples, weighted by their lengths; what is not known stays unknown."""
    result = make_result()
    values = np.arange(120.0).reshape(3, 40)
    values[1, :20] = np.nan
    edges, same = run_plots._thinned(result, values)
    assert same is values
    assert len(edges) == 41
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_plots, "MOST_POINTS", 7)
        edges, thin = run_plots._thinned(result, values)
    assert thin.shape == (3, 7)
    assert np.allclose(thin[0], [2.5, 8.5, 14.5, 20.5, 26.5, 32.5, 37.5])
    assert np.isnan(thin[1, :3]).all()
    assert thin[1, 3] == pytest.approx(np.mean(values[1, 20:24]))
    assert edges[-1] == result.duration_ns


def test_nothing_happened():
    pytest.importorskip("matplotlib")
    quiet = make_result(load=0.0)
    for values in (*quiet.hosts.values(), *quiet.vms.values()):
        values[...] = 0
    quiet.vms["host"][...] = -1
    quiet.hosts["memory_state"][...] = -1
    page = run_html(dataclasses.replace(quiet, events=(), monitors=()))
    assert outside(page) == []
    assert "Nothing happened." in page


def test_without_matplotlib(result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"Matplotlib.*pyvirt\[plot\]"):
        save(result, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    save(result, tmp_path / "run", html=False)


def test_bad_input():
    with pytest.raises(InvalidTypeError, match="result must be a Result"):
        run_html({})


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page in")
def test_a_browser_asks_for_nothing(tmp_path):
    """What it loaded stands in its log; the proxy is one that does not answer."""
    pytest.importorskip("matplotlib")
    save(make_result(names=EVIL), tmp_path / "run")
    report = tmp_path / "run" / "report.html"
    dom, urls = browse(report, tmp_path / "first")
    assert dom.count("<svg") == 6
    assert all(name in dom for name in ("日本", "&lt;script&gt;alert(1)&lt;/script&gt;"))
    assert urls == []
    # and the log is one in which a request would be seen
    other = tmp_path / "other.html"
    other.write_text('<!DOCTYPE html><img src="http://pyvirt.invalid/x.png">')
    _, urls = browse(other, tmp_path / "second")
    assert "http://pyvirt.invalid/x.png" in urls


def browse(path, folder):
    """The document as the browser has it, and the addresses that it asked the network for."""
    log = folder / "net.json"
    folder.mkdir()
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
            *("--proxy-server=127.0.0.1:9", f"--user-data-dir={folder / 'profile'}"),
            *(f"--log-net-log={log}", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    urls = re.findall(r'"url":"([^"]+)"', log.read_text(encoding="utf-8"))
    # what the browser itself asks its maker, page or no page, is none of the page's
    own = ("google", "gvt1.com", "gstatic", "chrome-extension", "chromium.org")
    asked = {url for url in urls if url.startswith(("http:", "https:", "ws:", "ftp:"))}
    return done.stdout, sorted(url for url in asked if not any(word in url for word in own))
