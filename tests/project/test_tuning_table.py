"""The table of what tuning adds: paired gains of each data set, from the rows of a file."""

from pathlib import Path

from tools.tables.tuning import fill_tuning


def test_a_table_of_tuning_holds_paired_gains_of_each_data_set(tmp_path: Path) -> None:
    rows = ["data,part,by,encoder,size,draw,frozen,guarded,kept,seconds,hardware"]
    rows += [
        "b,test,tune,net,160,0,70,73,True,40,cpu",
        "b,test,tune,net,160,1,80,81,True,50,cpu",
        "b,val,tune,net,160,0,10,90,True,1,x",
    ]
    rows += ["a,test,unlabelled,net,160,0,10,20,True,60,cpu"]
    rows += ["a,test,tune,net,160,0,90,90,False,60,cpu"]
    (tmp_path / "tune.csv").write_text("\n".join(rows) + "\n")
    text = fill_tuning("<!-- tuning:tune -->\n<!-- /tuning -->", tmp_path)
    lines = [line for line in text.splitlines() if line.startswith(("| a", "| b"))]
    assert lines == [
        "| a | 160 | 1 | 90.00 | 90.00 | +0.00 (+0.00 to +0.00) | 0 of 1 | +0.0 | 60 |",
        "| b | 160 | 2 | 75.00 | 77.00 | +2.00 (+0.04 to +3.96) | 2 of 2 | +1.0 | 40 |",
    ]
    assert "net, cpu." in text
