"""What is printed of a run."""

import re
from pathlib import Path

from pyvirt.cli.run_show import show_replications, show_run, show_side_by_side
from report.made_results import NAMES, make_result

SHOWN = Path(__file__).with_name("run_show.txt")


def test_tables_are_printed(capsys):
    show_run(make_result(), events=2)
    assert capsys.readouterr().out == SHOWN.read_text(encoding="utf-8")


def test_names_are_no_markup(capsys):
    show_run(make_result(names=("[red]a[/red]", "[/]", *NAMES[2:])), events=0)
    printed = capsys.readouterr().out
    assert "[red]a[/red]" in printed
    assert "\n  [/] " in printed
    assert "the last" not in printed


def table(printed):
    """The cells of each row below the heading."""
    lines = printed.splitlines()
    begin = next(i for i, line in enumerate(lines) if set(line.strip()) == {"\u2500"})
    return {line.split("  ")[1].strip(): line.split()[-4:] for line in lines[begin + 1 :] if line}


def test_means_are_printed(capsys):
    show_replications([make_result(seed=seed) for seed in range(5)])
    printed = capsys.readouterr().out
    assert printed.startswith("three hosts: 5 runs, means with 95 % intervals")
    rows = table(printed)
    # seeds 0 to 4, as in the golden table of test_replications
    assert re.search(r"utilisation \(%\) +62\.12 ", printed)
    assert rows["utilisation (%)"] == ["±", "0.47", "61.71", "62.67"]
    assert rows["down (s)"] == ["±", "0", "120", "120"]
    show_replications([make_result()])
    printed = capsys.readouterr().out
    assert printed.startswith("three hosts: 1 run,")
    assert " - " in printed


def test_hypervisors_are_printed_side_by_side(capsys):
    one = make_result(seed=0)
    show_side_by_side({"esxi": one, "xen": [one, make_result(seed=1)], "[kvm]": one})
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("esxi", "xen", "[kvm]"))
    line = next(line for line in printed.splitlines() if "migrations" in line)
    assert line.split()[1:] == ["4", "4", "4"]
