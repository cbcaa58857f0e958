r"""esxtop's batch form: what is written is read back, and its tools find what they look for."""

import csv
import datetime
import io
import re
from pathlib import Path

import numpy as np
import pytest

from pyvirt.errors import InvalidTypeError, InvalidValueError, TraceFormatError
from pyvirt.sched import (
    EsxtopColumn,
    Poisson,
    Scheduler,
    Series,
    read_esxtop,
    sample,
    write_esxtop,
)

MS = 1_000_000
# Headings as esxtop 5 to 8 writes them.
HEADINGS = [
    "Memory\\Memory Overcommit (1 Minute Avg)",
    "Physical Cpu(_Total)\\% Util Time",
    "Group Cpu(28868:DEV (2))\\% Ready",
    "Group Cpu(28868:DEV (2))\\% CoStop",
    "Vcpu(28868:DEV (2):5421591:vmx)\\% Run",
    "Virtual Disk(DEV (2):scsi0:0)\\Average MilliSec/Read",
]
REAL = ",".join(['"(PDH-CSV 4.0) (UTC)(0)"', *(f'"\\\\esx1.lab\\{name}"' for name in HEADINGS)])
REAL += """
"05/15/2017 06:49:37","0.00","1.21","12.50","3.25","99.98",""
"05/15/2017 06:49:42","0.00","2.28","0.11","0.00","7.00","4.5"
"""


@pytest.fixture
def series() -> Series:
    host = Scheduler(cpus=2)
    pair = [host.add(weight=2), host.add(weight=2)]
    capped = host.add(limit=(10 * MS, 100 * MS))
    web = host.add(Poisson(2 * MS, 20 * MS))
    return sample(
        host, 4000 * MS, 1000 * MS, groups={"pair": pair, "capped": [capped], "web": [web]}
    )


def test_what_is_written_is_read(series: Series, tmp_path: Path):
    path = tmp_path / "batch.csv"
    write_esxtop(path, series, host="lab", start=datetime.datetime(2026, 2, 27, 23, 59, 58))
    table = read_esxtop(path)
    assert table.host == "lab"
    assert table.groups() == ("pair", "capped", "web")
    assert table.times.tolist() == [
        datetime.datetime(2026, 2, 27, 23, 59, 59),
        *(datetime.datetime(2026, 2, 28, 0, 0, second) for second in range(3)),
    ]
    names = {"%RUN": "% Run", "%RDY": "% Ready", "%MLMTD": "% Max Limited", "%WAIT": "% Wait"}
    for column, counter in names.items():
        wanted = series.percent(column, by="vm")
        for i, group in enumerate(table.groups()):
            got = table.group(group)
            np.testing.assert_allclose(got[counter], wanted[:, i], atol=0.005001)
            assert got["Members"].tolist() == [2 if group == "pair" else 1] * 4
    worlds = {c.instance: i for i, c in enumerate(table.columns) if c[::2] == ("Vcpu", "% Run")}
    assert list(worlds) == [
        "1:pair:0:vmx-vcpu-0",
        "1:pair:1:vmx-vcpu-1",
        "2:capped:2:vmx-vcpu-0",
        "3:web:3:vmx-vcpu-0",
    ]
    got = table.values[:, list(worlds.values())]
    np.testing.assert_allclose(got, series.percent("%RUN"), atol=0.005001)
    total = table.columns.index(EsxtopColumn("Physical Cpu", "_Total", "% Util Time"))
    np.testing.assert_allclose(table.values[:, total], got.sum(axis=1) / 2, atol=0.03)


def test_tools_find_what_they_look_for(series: Series):
    """Splitting at `","` and at backslashes, and these patterns, are what public tools do."""
    file = io.StringIO()
    write_esxtop(file, series)
    heading, *rows = file.getvalue().splitlines()
    assert heading.split('","')[0] == '"(PDH-CSV 4.0) (UTC)(0)'
    assert len({row.count('","') for row in (heading, *rows)}) == 1
    reader = csv.DictReader(io.StringIO(file.getvalue()))
    taken = list(reader)
    assert [row["(PDH-CSV 4.0) (UTC)(0)"] for row in taken][:2] == [
        "01/01/2000 00:00:01",
        "01/01/2000 00:00:02",
    ]
    for name in reader.fieldnames[1:]:
        empty, also, host, thing, counter = name.split("\\")
        assert (empty, also, host) == ("", "", "pyvirt")
        if thing.startswith("Group Cpu"):
            number, group = re.fullmatch(r"Group Cpu\(([^:]*):([^:]*)\)", thing).groups()
            assert number in "123"
            assert group in series.groups
            assert re.fullmatch(r"Members|% [A-Z][A-Za-z ]+", counter)
    assert all(re.fullmatch(r"\d+\.\d\d", v) for row in taken for v in list(row.values())[1:])


def test_names_do_not_break_the_form(series: Series):
    groups = {'a,"b"': (0,), "c\\d\n": (1, 2), "e:f (g)": (3,)}
    odd = Series(series.times_ns, series.worlds, series.ns, series.cpu_run_ns, groups)
    file = io.StringIO()
    write_esxtop(file, odd, host="x\\y", worlds=False)
    file.seek(0)
    table = read_esxtop(file)
    assert table.host == "x_y"
    assert table.groups() == ("a__b_", "c_d_", "e:f (g)")
    assert not [c for c in table.columns if c.object == "Vcpu"]


def test_short_intervals_have_fractions():
    host = Scheduler()
    host.add()
    file = io.StringIO()
    write_esxtop(file, sample(host, 3 * MS, 1_500_000))
    file.seek(0)
    times = read_esxtop(file).times
    assert times.tolist() == [datetime.datetime(2000, 1, 1, 0, 0, 0, us) for us in (1500, 3000)]


def test_files_of_esxtop_are_read():
    table = read_esxtop(io.StringIO(REAL))
    assert table.host == "esx1.lab"
    assert table.columns[0] == EsxtopColumn("Memory", "", "Memory Overcommit (1 Minute Avg)")
    assert table.columns[-1] == EsxtopColumn(
        "Virtual Disk", "DEV (2):scsi0:0", "Average MilliSec/Read"
    )
    assert table.group("DEV (2)")["% Ready"].tolist() == [12.5, 0.11]
    assert np.isnan(table.values[0, -1])
    assert table.times[1] == np.datetime64("2017-05-15T06:49:42")
    few = read_esxtop(io.StringIO(REAL), objects=["Group Cpu"])
    assert few.values.tolist() == [[12.5, 3.25], [0.11, 0]]
    with pytest.raises(InvalidValueError, match=r"no group is named 'web'; there are \('DEV"):
        few.group("web")


def test_a_heading_may_end_in_a_comma():
    text = "".join(line + ",\n" for line in REAL.splitlines())
    assert read_esxtop(io.StringIO(text)).values.shape == (2, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 must begin with"),
        ("time,a\n", "line 1 must begin with .*got 'time'"),
        (REAL.replace("\\\\esx1.lab\\Memory\\", "x", 1), "line 1: .* is not"),
        (REAL.replace(',"4.5"', ""), "line 3 has 6 fields and line 1 has 7"),
        (
            REAL.replace("05/15/2017 06:49:42", "yesterday"),
            "line 3: the time must be .*'yesterday'",
        ),
        (REAL.replace("05/15/2017 06:49:42", "13/15/2017 06:49:42"), "line 3: the time must be"),
        (REAL.replace('"99.98"', '"much"'), "line 2: could not convert string to float: 'much'"),
    ],
)
def test_what_is_no_such_file(text: str, message: str):
    with pytest.raises(TraceFormatError, match=message):
        read_esxtop(io.StringIO(text))


def test_only_series_are_written():
    with pytest.raises(InvalidTypeError, match="series must be a Series"):
        write_esxtop(io.StringIO(), [1])
