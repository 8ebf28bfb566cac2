"""What benchmarks say: charts that any reader of XML takes, and ratios with their spread."""

from __future__ import annotations

import argparse
import json
from xml.etree import ElementTree

import pytest

from benchmarks import chart, report

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*panels: chart.Panel) -> tuple[ElementTree.Element, list[str]]:
    """The picture, and all it says."""
    root = ElementTree.fromstring(chart.page(*panels))
    return root, [text.text or "" for text in root.iter(f"{SVG}text")]


def test_bars_carry_their_names_and_values_the_largest_first() -> None:
    _, texts = drawn(chart.bars("Rates", {"small": 12.5, "Ours <&>": 1234.0}, "a second", "Ours"))
    assert [text for text in texts if text in ("small", "Ours <&>")] == ["Ours <&>", "small"]
    assert {"Rates", "a second", "1,234", "12.5"} <= set(texts)


def test_a_bar_is_as_long_as_its_value() -> None:
    root, _ = drawn(chart.bars("Rates", {"half": 50.0, "whole": 100.0}, "a second"))
    wide = [float(rect.get("width", "")) for rect in root.findall(f"{SVG}g/{SVG}rect")]
    assert wide[0] == pytest.approx(2 * wide[1])


def test_only_ours_stands_out() -> None:
    root, _ = drawn(
        chart.bars("Rates", {"Rowcast": 2.0, "b": 1.0, "c": 1.5}, "a second", "Rowcast")
    )
    first, *others = [rect.get("fill") for rect in root.findall(f"{SVG}g/{SVG}rect")]
    assert len(set(others)) == 1 and first not in others


def test_groups_name_each_series_once_and_every_group() -> None:
    values = {
        "INSERT": {"plain": 35.0, "captured": 63.0},
        "UPDATE": {"plain": 12.0, "captured": 56.0},
    }
    _, texts = drawn(chart.groups("Writes", values, "µs a row", ours="captured"))
    assert {"Writes", "µs a row", "INSERT", "UPDATE", "35.0", "63.0", "12.0", "56.0"} <= set(texts)
    assert texts.count("plain") == texts.count("captured") == 1


def test_quantiles_stand_in_order_along_their_axis() -> None:
    values = {"100 a second": {"p50": 6.0, "p95": 12.0, "p99": 83.0}}
    root, texts = drawn(chart.spans("Arrival", values, "ms"))
    at = [float(circle.get("cx", "")) for circle in root.iter(f"{SVG}circle")]
    assert at == sorted(at) and len(set(at)) == 3
    assert {"Arrival", "ms", "100 a second", "p50", "p95", "p99", "6.00 / 12.0 / 83.0"} <= set(
        texts
    )


def test_lines_step_evenly_through_powers_of_ten() -> None:
    series = {"owner": {100: 66.0, 1_000: 67.0, 10_000: 73.0}, "team": {100: 70.0, 10_000: 87.0}}
    root, texts = drawn(chart.lines("Matching", series, "subscriptions", "µs a change"))
    at = [float(circle.get("cx", "")) for circle in root.iter(f"{SVG}circle")][:3]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1], abs=0.2)
    told = {"Matching", "subscriptions", "µs a change", "owner", "team", "100", "10,000"}
    assert told | {"66.0", "67.0", "73.0", "70.0", "87.0"} <= set(texts)


def test_a_course_is_a_line_for_each_series_over_an_even_axis() -> None:
    series = {
        "p99": [(0.0, 20.0), (10.0, 30.0), (20.0, 25.0)],
        "p50": [(0.0, 5.0), (10.0, 6.0), (20.0, 5.5)],
    }
    root, texts = drawn(chart.course("Arrival", series, "minutes", "ms"))
    assert {"Arrival", "minutes", "ms", "p99 (25.0)", "p50 (5.50)"} <= set(texts)
    lines = [path for path in root.iter(f"{SVG}path") if path.get("fill") == "none"]
    first, *_ = [line.get("d", "")[1:].split("L") for line in lines]
    x = [float(point.split()[0]) for point in first]
    assert len(lines) == 2 and x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    y = [float(point.split()[1]) for point in first]
    assert min(y) == y[1]


def test_many_lines_of_a_course_have_a_colour_each() -> None:
    series = {f"part {number}": [(0.0, 1.0), (1.0, float(number))] for number in range(7)}
    root, _ = drawn(chart.course("Memory", series, "minutes", "MB"))
    colours = [path.get("stroke") for path in root.iter(f"{SVG}path") if path.get("fill") == "none"]
    assert len(set(colours)) == 7


def test_panels_of_a_page_do_not_overlap() -> None:
    one = chart.bars("First", {"a": 1.0}, "x")
    two = chart.bars("Second", {"b": 2.0, "c": 3.0}, "y")
    root, texts = drawn(one, two)
    places = [group.get("transform") for group in root.findall(f"{SVG}g")]
    assert places == ["translate(0 0)", f"translate(0 {one.height:g})"]
    assert root.get("viewBox") == f"0 0 720 {one.height + two.height:g}"
    assert {"First", "Second"} <= set(texts)


def test_values_that_are_all_nought_are_drawn() -> None:
    _, texts = drawn(chart.bars("Idle", {"a": 0.0}, "%"))
    assert texts.count("0") >= 1


def test_a_table_of_ratios_names_both_the_goal_and_least_median_and_most() -> None:
    one = report.Comparison("rate", "fast path", "C loop", [0.9, 0.7, 0.8], goal=0.8)
    two = report.Comparison("cost", "rebind", "one change", [90_000.0, 110_000.0])
    head, _, first, second = report.table_of_ratios([one, two]).splitlines()

    def cells(line: str) -> list[str]:
        return [cell.strip() for cell in line.strip("|").split("|")]

    assert cells(head)[1:] == ["ours", "the other", "goal", "min / median / max"]
    assert cells(first) == ["rate", "fast path", "C loop", "0.8", "0.70 / 0.80 / 0.90"]
    assert cells(second) == ["cost", "rebind", "one change", "", "90,000 / 100,000 / 110,000"]


def test_promises_say_whether_they_were_kept() -> None:
    promises = [report.Promise("none lost", "0", True), report.Promise("level", "grew", False)]
    lines = report.table_of_promises(promises).splitlines()
    assert "PASS" in lines[2] and "none lost" in lines[2]
    assert "FAIL" in lines[3] and "grew" in lines[3]


def test_ratios_go_round_by_round() -> None:
    assert report.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_what_is_kept_says_the_machine_and_what_was_asked_for() -> None:
    parser = argparse.ArgumentParser()
    report.add_options(parser, rounds=3)
    arguments = parser.parse_args(["--json", "a.json", "--chart", "a.svg"])
    one = report.Comparison("rate", "ours", "theirs", [2.0, 4.0, 3.0])
    found = json.loads(json.dumps(report.record(arguments, {"a": 1}, [one])))
    assert found["arguments"] == {"rounds": 3} and found["results"] == {"a": 1}
    assert {"date", "cores", "system", "python", "sqlite"} < found["machine"].keys()
    assert "Django" in found["machine"]["packages"]
    (kept,) = found["ratios"]
    assert (kept["min"], kept["median"], kept["max"]) == (2.0, 3.0, 4.0)


def test_no_rounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    report.add_options(parser, rounds=3)
    with pytest.raises(SystemExit):
        parser.parse_args(["--rounds", "0"])
    assert "at least 1" in capsys.readouterr().err
