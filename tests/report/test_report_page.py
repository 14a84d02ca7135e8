"""The page about tested runs: what it holds."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from dermiq.kg import KGScorer
from dermiq.prompts import parse
from dermiq.report import charts
from dermiq.report.__main__ import main
from dermiq.report.cases import case_data, verdict_counts
from dermiq.report.claims import VERDICTS, ClaimMarker
from dermiq.report.figures import Estimate, accuracies, calibration, confusion, headlines
from dermiq.report.stages import read_curves, read_stages
from dermiq.report.writing import write_report
from dermiq.schema import DataError, Sample
from support.reports import EVIL, PICTURES, TITLES, data_of, diagnosis, talk, write_run, write_story


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return write_story(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return write_report(runs, TITLES, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def stages(runs):
    return read_stages(runs, TITLES)


class Elements(HTMLParser):
    """The elements of a page, as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_cases_hold_the_answers_of_all_stages(page):
    data = data_of(page)
    assert data["stages"] == TITLES and len(data["cases"]) == 27
    case = next(each for each in data["cases"] if each["id"] == "lesion-1")
    assert (case["target"], case["skin"], case["kind"]) == ("psoriasis", "IV", "diagnosis")
    assert [answer and answer["right"] for answer in case["answers"]] == [False, True, None]
    assert case["answers"][0]["votes"] == [["scabies", 6], ["scabies", 2]] and case["answers"][0]["findings"] == [1, 2]
    assert [data["passages"][number][:2] for number in case["answers"][1]["passages"]] == [
        ["Reasoning", "morphology : papule . colour : red ."], ["Answer", "psoriasis"],
    ]  # fmt: skip


def test_each_picture_is_stored_once(page):
    data = data_of(page)
    stored = page.read_text(encoding="utf-8").split('id="pictures">')[1].split("</script>")[0].splitlines()
    assert sorted(stored) == sorted(PICTURES)  # however many rows show them
    shown = {each["id"]: each["pictures"] for each in data["cases"]}
    assert shown["lesion-1"] == shown["lesion-13"] == shown["talk-1"] and len(shown["talk-1"]) == 1


def claims(answer, data):
    """Words, verdicts and citation of each claim."""
    return [
        (text[start:end], *[(data["notes"][n][0], bool(data["notes"][n][3])) for n in numbers])
        for _, text, marks in (data["passages"][number] for number in answer["passages"])
        for start, end, numbers in marks
    ]


def test_claims_are_marked_where_they_stand_with_their_citation(page):
    data = data_of(page)
    cases = {each["id"]: each["answers"] for each in data["cases"]}
    assert claims(cases["talk-1"][1], data) == [("contagious", ("contradicted", True))]
    assert claims(cases["talk-1"][2], data) == [("contagious", ("supported", True))]
    assert ("scabies", ("contradicted", False)) in claims(cases["lesion-1"][0], data)
    assert ("psoriasis", ("supported", False)) in claims(cases["lesion-1"][1], data)
    assert all(note[2] for note in data["notes"] if note[3])  # who cites says what


@pytest.mark.parametrize(
    "completion",
    [
        "<think> it is scaly and itches . it is contagious . </think> <answer> psoriasis </answer>",
        "psoriasis is contagious . it is a benign disease and is treated with topical steroids .",
    ],
)
def test_the_claims_of_the_page_are_those_of_the_metrics(completion):
    row = talk(1, completion)
    marker = ClaimMarker()
    numbers = [number for passage in marker.mark(row) for mark in passage.marks for number in mark.notes]
    verdicts = [list(marker.notes)[number].verdict for number in numbers]
    sample = Sample("talk-1", (), row["target"], row["target"], "talk-1", row["question"], reply="")
    judged = KGScorer().judge(parse(completion), sample)
    assert len(verdicts) >= 2 and verdicts.count("contradicted") == len(judged.contradicted) > 0
    assert verdicts.count("contradicted") / len(verdicts) == pytest.approx(judged.contradiction_rate)


def test_claims_are_counted_by_verdict(stages):
    counts = verdict_counts(case_data(stages))
    assert counts["conversation"] == [
        {"supported": 1, "unknown": 0, "contradicted": 1},
        {"supported": 1, "unknown": 0, "contradicted": 1},
        {"supported": 2, "unknown": 0, "contradicted": 0},
    ]
    assert counts["diagnosis"][0]["contradicted"] >= 16 and counts["diagnosis"][2] == dict.fromkeys(VERDICTS, 0)


def test_what_runs_hold_is_shown_as_text(page):
    """No element and no template comes of a completion, and the data hold it unharmed."""
    text = page.read_text(encoding="utf-8")
    assert EVIL not in text and "<b>bold" not in text
    assert not [tag for tag, attributes in Elements(text).found if tag == "img" or "onerror" in attributes]
    case = next(each for each in data_of(page)["cases"] if each["id"] == "talk-3")
    assert data_of(page)["passages"][case["answers"][0]["passages"][0]][1] == EVIL


def test_the_page_asks_for_nothing_from_elsewhere(page):
    elements = Elements(page.read_text(encoding="utf-8")).found
    (policy,) = [attributes["content"] for tag, attributes in elements if tag == "meta" and "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy
    addresses = [attributes[name] for _, attributes in elements for name in ("src", "href") if name in attributes]
    assert addresses and all(address.startswith("#") for address in addresses)
    assert "Research only, not medical advice." in page.read_text(encoding="utf-8")


def test_without_thumbnails_curves_and_votes_the_page_says_so(tmp_path):
    row = diagnosis(0, "melanoma")
    gone = ("majority", "majority_lineage", "confidence", "ranking", "votes", "target_rank")
    write_run(tmp_path / "run", [{key: row[key] for key in row if key not in gone}], pictures=[])
    page = write_report([tmp_path / "run"], ["only"], tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    for sentence in ("Without pictures: no run here has", "No curves: none of the runs", "No votes: the tests drew"):
        assert sentence in text
    assert 'id="pictures"></script>' in text


def test_the_figures_by_hand(stages):
    accuracy = next(each for each in headlines(stages) if each.metric == "accuracy")
    assert [each and each.value for each in accuracy.values] == [pytest.approx(1 / 3), 1, None]
    by_type = accuracies(stages, "skin_type")
    assert list(by_type) == ["I", "IV", "VI"]
    assert [each and (each.value, each.n) for each in by_type["IV"]] == [(0, 8), (1, 8), None]
    by_condition = accuracies(stages, "target")["melanoma"]
    assert by_condition[0].value == pytest.approx(2 / 6) and 0 <= by_condition[0].low < 2 / 6 < by_condition[0].high
    (found,) = calibration(stages[0])
    assert (found.confidence, found.accuracy.value, found.accuracy.n) == (0.75, pytest.approx(1 / 3), 24)
    assert confusion(stages[0]).counts["melanoma"] == (0, 2, 0, 0, 4, 0)  # by name, then others, then none


def test_curves_are_means_of_stretches(runs, tmp_path):
    found = read_curves(runs[1], points=10)
    assert found.stretches[0] == (0, 9) and found.stretches[-1] == (90, 99)
    assert found.values["train/reward"][1] == pytest.approx(np.arange(10, 20).mean() / 100)
    assert read_curves(runs[0]) is None
    bad = tmp_path / "metrics" / "version_0" / "metrics.csv"
    bad.parent.mkdir(parents=True)
    bad.write_text("epoch,step,train/loss\n0,first,0.5\n")
    with pytest.raises(DataError, match=re.escape(str(bad))):
        read_curves(tmp_path)


def test_a_resumed_run_has_one_curve(tmp_path):
    for version, steps in ((9, (0, 1)), (10, (1, 2))):  # step 1 was done again
        path = tmp_path / "metrics" / f"version_{version}" / "metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_text("step,train/loss\n" + "".join(f"{step},{version}\n" for step in steps))
    assert read_curves(tmp_path).values["train/loss"] == (9, 10, 10)


@pytest.mark.parametrize("values", [[0.5], [2.0, 2.0], [-3.0, None, 4e-7], [0.0, 0.0]])
def test_a_curve_of_any_values_can_be_drawn(values):
    drawn = charts.curve("<loss>", [(i, i) for i in range(len(values))], values)
    assert "&lt;loss&gt;" in drawn and "nan" not in drawn and drawn.count("<circle") == len(values) - values.count(None)


def test_a_bar_is_as_long_as_its_share():
    drawn = charts.bar(Estimate(0.25, 0.1, 0.5, 8))
    assert 'width="25.00%"' in drawn and 'x1="10.00%" x2="50.00%"' in drawn
    assert "whisker" not in charts.bar(Estimate(0.25, None, None, 1))


def test_one_id_for_different_questions_is_refused(tmp_path):
    write_run(tmp_path / "a", [diagnosis(0, "melanoma")])
    write_run(tmp_path / "b", [diagnosis(0, "melanoma", question="What now?")])
    with pytest.raises(DataError, match="What now"):
        read_stages([tmp_path / "a", tmp_path / "b"], ["a", "b"])


def test_the_command_line(runs, tmp_path, capsys):
    main([*map(str, runs[:2]), "--out", str(tmp_path / "out")])
    assert "".join(capsys.readouterr().out.split()) == f"Wrote{tmp_path}/out/index.html."
    assert data_of(tmp_path / "out" / "index.html")["stages"] == ["first", "second"]
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0 and "RUN [RUN ...] --out DIR" in shown and "dermiq.report compare RUN" in shown
    with pytest.raises(DataError, match="Test the run first"):
        main([str(tmp_path), "--out", str(tmp_path)])
