"""What is printed of a run."""

from pathlib import Path

from pyvirt.cli.run_show import show_run
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
