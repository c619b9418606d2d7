import json

import numpy as np
import pytest

from gpumlp.backends.cuda.measure import parse_nodes
from gpumlp.doctor.report import (
    Case,
    Check,
    Report,
    Table,
    caught,
    caught_table,
    compared,
    free_places,
    relative_difference,
    save,
)

# written as NVIDIA's driver writes it with the flag Verbose; of each label only the beginning
DOT = r"""digraph dot {
subgraph cluster_1 {
label="graph_1" graph[style="dashed"];
"graph_1_node_0"[style="solid" style="solid" shape="record" label="{MEMSET
| {{ID | node handle | dptr} | {0 (topoId: 4) | 0x000000000A00B680 | 0x00007FC45DC00000}}}"];

"graph_1_node_1"[style="bold" shape="record" label="{KERNEL
| {ID | 1 (topoId: 3) | ampere_sgemm_128x64_tn\<\<\<\{16,10,2\},128,0\>\>\>}
| {{node handle | func handle} | {0x000000000A00BB80 | 0x000000000D56CF70}}
}"];

"graph_1_node_2"[style="solid" shape="record" label="{
MEM_ALLOC
| {{ID | node handle} | {2 (topoId: 2) | 0x000000000A00BB81}}}"];

"graph_1_node_3"[style="bold" shape="record" label="{KERNEL
| {ID | 3 (topoId: 1) | update\<\<\<12,256,0\>\>\>}
}"];
"graph_1_node_0" -> "graph_1_node_1" [headlabel=0];
"graph_1_node_1" -> "graph_1_node_3" [headlabel=0];
}
}
"""


def a_report(*checks, tables=()):
    return Report("a device", False, {"gpumlp": "1"}, list(checks), list(tables))


def test_the_nodes_of_a_graph_are_read_from_its_description():
    nodes = parse_nodes(DOT)
    assert [node.kind for node in nodes] == ["MEMSET", "KERNEL", "MEM_ALLOC", "KERNEL"]
    assert [node.name for node in nodes] == ["", "ampere_sgemm_128x64_tn", "", "update"]
    assert [node.is_memory for node in nodes] == [False, False, True, False]


@pytest.mark.parametrize(
    ("case", "passed"),
    [
        (Case("a", {"x": 1e-7}, {"x": 1e-6}), True),
        (Case("a", {"x": 1e-5}, {"x": 1e-6}), False),
        (Case("a", {"x": float("nan")}, {"x": 1e-6}), False),
        (Case("a", error="it broke"), False),
    ],
)
def test_a_case_passes_within_its_tolerance_alone(case, passed):
    assert case.passed == passed
    assert compared("c", [case, Case("b", {"x": 0.0}, {"x": 1e-6})]).passed == passed


def test_a_failed_case_is_named_in_the_summary_and_in_the_text():
    check = compared("costs", [Case("good", {"x": 0.0}, {"x": 1e-6}), Case("bad", {"x": 0.5}, {"x": 1e-6})])
    assert "1 of 2 within 1e-06; the worst is bad" in check.summary
    text = a_report(check).as_markdown()
    assert "SOME CHECKS FAIL" in text
    assert "| costs | bad | x 0.5 |" in text


def test_an_error_in_a_check_or_a_table_is_kept_and_the_rest_goes_on():
    def broken():
        raise ValueError("no\nsuch thing")

    check, table = caught("c", broken), caught_table("t", broken)
    assert (check.passed, check.error, table.error) == (False, *["ValueError: no such thing"] * 2)
    report = a_report(Check("d", True), check, tables=[table])
    assert not report.passed
    assert "Failed: ValueError: no such thing" in report.as_markdown()


def test_a_report_without_checks_has_not_passed():
    assert not a_report().passed
    assert a_report(Check("d", True)).passed


def test_differences_are_relative_to_the_largest_value_and_see_what_is_not_finite():
    assert relative_difference([[2.0, 0.0]], [[4.0, 0.0]]) == 0.5
    assert relative_difference([[0.0]], [[0.0]]) == 0
    assert relative_difference([[1e-30]], [[0.0]]) == 1
    assert np.isnan(relative_difference([[np.nan]], [[1.0]]))
    with pytest.raises(ValueError, match="shapes differ"):
        relative_difference([[1.0]], [[1.0, 2.0]])


def test_a_report_becomes_json_without_nan():
    table = Table("t", "note", ["a", "b"], [[float("nan"), None], [1.5, "x|y"]])
    report = a_report(compared("c", [Case("n", {"x": float("nan")}, {"x": 1.0})]), tables=[table])
    found = json.loads(report.as_json(), parse_constant=pytest.fail)
    assert found["measurements"][0]["rows"] == [["nan", None], [1.5, "x|y"]]
    assert found["checks"][0]["cases"][0]["passed"] is False
    assert "| 1.5 | x\\|y |" in report.as_markdown()


def test_existing_reports_are_never_written_over(tmp_path):
    (tmp_path / "doctor.md").write_text("mine")
    (tmp_path / "doctor-2.json").write_text("mine, too")
    places = free_places(tmp_path)
    assert [place.name for place in places] == ["doctor-3.json", "doctor-3.md"]
    save(a_report(Check("d", True)), places)
    assert json.loads(places[0].read_text())["passed"]
    assert (tmp_path / "doctor.md").read_text() == "mine"
    assert [place.name for place in free_places(tmp_path)] == ["doctor-4.json", "doctor-4.md"]
