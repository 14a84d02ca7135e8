"""The study's page: tables, figures and claims from made-up records, and the published page from the published ones."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from study.claims import HOLDS, NOT_SHOWN, REVERSED, UNTESTED, judge
from study.figures import learning_curves
from study.page import write_page
from study.plan import FULL, read_study
from study.record import read_records, write_records
from study.selection import experiments
from study.tables import brackets, points, shared_rates

from dermiq.schema import DataError
from support.study_records import RIGHT, STUDY, groups, headline, record

REPOSITORY = Path(__file__).parents[2]
CLAIMS = STUDY["claims"]


def written(folder, study=STUDY, records=None):
    write_page(study, headline() + groups() if records is None else records, folder / "study.md", folder / "images")
    return (folder / "study.md").read_text(encoding="utf-8")


def rows_below(page, title):
    """The cells of the rows of the table under a bold title or a heading."""
    table = page.split(title, 1)[1].lstrip("*#\n ").split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in table.splitlines()[2:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    written(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "study.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    return experiments(STUDY, headline() + groups())


def test_results_are_means_with_intervals(page):
    """8, 9 and 8 of 10: mean 83.33, deviation 5.7735, half-width 4.3027 * 5.7735 / sqrt(3) = 14.34; samples half."""
    assert rows_below(page, "**Results on “adapted to”, %**") == [
        ["warm start", "46.7 ± 14.3", "48.3 ± 7.2", "3"],
        ["GRPO++", "83.3 ± 14.3", "66.7 ± 7.2", "3"],
        ["GRPO", "60.0 ± 0.0", "55.0 ± 0.0", "3"],
        ["SFT", "53.3 ± 51.7", "51.7 ± 25.9", "3"],
    ]


def test_differences_are_paired_by_seed(page):
    """GRPO++ minus SFT: 20, 20, 50: mean 30, deviation sqrt(300), half-width 4.3027 * 10 = 43.03."""
    rows = {(row[0], row[1], row[2]): row[3:] for row in rows_below(page, "**Paired differences, percentage points**")}
    difference, interval, _, pairs = rows["SFT", "adapted to", "majority of 8"]
    assert (difference, interval, pairs) == ("+30.0", "[-13.0, +73.0]", "3")
    assert rows["GRPO", "adapted to", "majority of 8"][:2] == ["**+23.3**", "[+9.0, +37.7]"]
    assert rows["GRPO", "warm start's", "majority of 8"][:3] == ["+0.0", "[+0.0, +0.0]", "[+0.0, +0.0]"]
    assert len(rows) == 2 * 2 * 2


def test_costs_and_stability(page):
    """Training took 100, 101 and 102 s. GRPO with groups of 4: 4 and 6 of 10, after starts of 5 and 5."""
    assert ["GRPO++", "0.0003", "101", "4", "50.0", "3"] in rows_below(page, "**What the runs cost**")
    stable = rows_below(page, "**Stability of majority of 8 over seeds, on “adapted to”, %**")
    assert stable[-1] == ["GRPO", "G = 4", "64 images", "50.0", "14.1", "40.0", "60.0", "1 of 2", "2"]
    assert stable[0] == ["GRPO++", "as above", "32 images", "60.0", "0.0", "60.0", "60.0", "0 of 3", "3"]
    assert len(stable) == 6


def test_accuracy_over_sizes(page):
    """A start is trained on none of them: it stands the same under each size. What was not run is left out."""
    sizes = rows_below(page, "**Majority of 8 over training-set sizes, on “adapted to”, %**")
    assert sizes[0] == ["warm start", "", "46.7 ± 14.3", "46.7 ± 14.3"]
    assert sizes[1] == ["GRPO++", "as above", "60.0 ± 0.0", "83.3 ± 14.3"]
    assert sizes[2] == ["GRPO++", "G = 4", "–", "73.3 ± 14.3"]


def test_missing_runs_are_said(page):
    """Of 1 + 2 * 2 * 2 cells with three seeds each, GRPO++ at 32 with groups of 4 and most of GRPO's there lack."""
    assert page.count("**Incomplete: 20 of 27 runs are recorded.**") == 1
    assert "12 runs, 3 seeds each." in page


def test_tuning_shows_what_was_chosen(page):
    """The better score is bold, of equals the lower rate; where a rate was not tried there is nothing."""
    assert rows_below(page, "**Testbed: phantom, seed 100**") == [
        ["GRPO++", "62.5 (200 s)", "**75.0 (200 s)**", "–"],
        ["SFT", "–", "**50.0 (200 s)**", "50.0 (200 s)"],
    ]


def test_rates_that_were_not_tuned_are_told(page):
    """Of the variants that an experiment runs; no experiment of the page runs the one without a KL penalty."""
    study = deepcopy(STUDY)
    study["experiments"]["groups"]["variants"] += ["kl"]
    assert shared_rates(study, "phantom") == "Not tuned, but run at the rate of GRPO++: no KL penalty."
    assert shared_rates(STUDY, "phantom") == "" and "Not tuned" not in page


def test_the_header_counts_runs_and_hours(page):
    """23 tested runs of 150 s plus their seed, and 4 of tuning at 250 s: 4472 s."""
    assert sum(sum(run.seconds.values()) for run in headline() + groups()) == 4472
    assert "It rests on 27 runs, 4 of them for tuning alone, that took 1.2 hours of CPU time in all." in page


def test_text_stands_before_the_tables_and_notes_after(page):
    section = page.split("## Little data")[1].split("\n## ")[0]
    assert section.index("What it is about.") < section.index("**Results") < section.index("What came of it.")


def test_claims_are_judged_by_rule(found):
    assert [judge(claim, found).verdict for claim in CLAIMS] == [NOT_SHOWN, REVERSED, NOT_SHOWN, HOLDS, UNTESTED]
    large = judge(CLAIMS[3], found)
    assert large.measured == (
        "GRPO++ (as above, 64 images) minus GRPO++ (G = 4, 64 images): majority of 8, adapted to"
    ) and large.difference.spread.values == pytest.approx((0.1, 0.1, 0.1))


def test_a_claim_may_compare_sizes_and_settings_of_its_own(found):
    """GRPO++ at 64 images, 8, 9 and 8, against 6 at 32; and an experiment of one setting that is not the usual one."""
    sizes = {**CLAIMS[3]["measured"], "worse_setting": "", "worse_size": 32}
    finding = judge({"measured": sizes}, found)
    assert finding.difference.spread.values == pytest.approx((0.2, 0.3, 0.2))
    study = deepcopy(STUDY)
    study["experiments"]["groups"]["settings"] = ["g4"]
    small = {**CLAIMS[3]["measured"], "worse_setting": "g4", "worse": "grpo"}
    finding = judge({"measured": small}, experiments(study, groups()))
    assert finding.difference.spread.values == pytest.approx((0.3, 0.2))
    assert finding.measured == "GRPO++ (64 images) minus GRPO (64 images): majority of 8, adapted to"


def test_the_claims_table(page):
    rows = rows_below(page, "## Claims")
    assert rows[0] == [
        "Paper A", "RL beats SFT.", "58 against 52 %", "", "**does not hold (no difference shown)**",
        "GRPO++ minus SFT: majority of 8, adapted to", "+30.0", "[-13.0, +73.0]", "3",
    ]  # fmt: skip
    assert rows[1][3:] == [
        "with our part", "**does not hold (reversed)**",
        "GRPO minus GRPO++: majority of 8, adapted to", "-23.3", "[-37.7, -9.0]", "3",
    ]  # fmt: skip
    assert rows[4][3:] == ["", "**cannot be tested here**", "See the results.", "", "", ""]


def test_the_same_difference_flips_with_the_sides(found):
    """What holds one way round is reversed the other way round."""
    measured = CLAIMS[1]["measured"] | {"better": "plus", "worse": "grpo"}
    assert judge({"measured": measured}, found).verdict == HOLDS


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([run for run in headline() if run.variant != "sft"], "There are no runs of SFT."),
        ([run for run in headline() if run.variant not in ("sft", "plus")], "There are no runs of GRPO++ and SFT."),
        ([run for run in headline() if (run.variant == "sft") == (run.seed == 1)], "The runs do not share a seed"),
    ],
)
def test_a_claim_without_runs_cannot_be_tested(runs, said):
    finding = judge(CLAIMS[0], experiments(STUDY, runs))
    assert finding.verdict == UNTESTED and finding.measured.startswith(said)


def test_one_seed_is_no_test():
    finding = judge(CLAIMS[1], experiments(STUDY, [run for run in headline() if run.seed == 0]))
    assert finding.verdict == UNTESTED and points(finding.difference.spread.mean) == "-20.0"
    assert brackets(finding.difference.spread.interval) == "–" and finding.measured.endswith(
        "One seed gives no interval."
    )


def test_a_claim_about_an_experiment_that_was_left_out_cannot_be_tested(found):
    finding = judge(CLAIMS[3], {"headline": found["headline"]})
    assert (finding.verdict, finding.measured) == (UNTESTED, "The experiment “groups” was not run.")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"domain": "third"}, "on the domain 'third', but the experiment headline has new, old"),
        ({"metric": "accuracy"}, "the metric 'accuracy', which does not exist"),
        ({"better": "dpo"}, "names 'dpo', which is neither"),
        ({"experiment": "groups"}, "groups, which has several sizes: say which"),
        ({"better_setting": "g3"}, "in the setting 'g3', which the study does not have"),
    ],
)
def test_a_claim_that_names_what_is_not_there_is_refused(found, changed, said):
    with pytest.raises(DataError, match=said):
        judge({"measured": CLAIMS[0]["measured"] | changed}, found)


def test_two_records_of_one_run_are_refused():
    twice = [*headline(), replace(record("plus", 0, 8), name="older")]
    with pytest.raises(DataError, match="are of the same run"):
        experiments(STUDY, twice)


def test_seeds_that_an_experiment_does_not_name_do_not_count(found):
    """Another experiment may ask for more seeds of the same variant."""
    more = experiments(STUDY, [*headline(), *groups(), record("plus", 7, 0)])["headline"]
    assert more.found == found["headline"].found == 12


def test_runs_start_from_what_setting_variant_or_testbed_say(found):
    study = deepcopy(STUDY)
    study["starts"]["format"] = {"title": "format only", "size": 40}
    study["variants"]["grpo"]["start"] = "format"
    study["settings"]["g4"]["start"] = "warm_start"
    experiment = experiments(study, headline() + groups())["groups"]
    started = [
        experiment.start(experiment.cell(*cell)) for cell in (("plus", "", 64), ("grpo", "", 64), ("grpo", "g4", 64))
    ]
    assert [(cell.variant, cell.size) for cell in started] == [("warm_start", 400), ("format", 40), ("warm_start", 400)]
    assert experiment.start(started[0]) is None


def test_curves_are_means_over_seeds_with_bands(found):
    """Rewards at step 1 are 0, 0.1 and 0.2; SFT has none, and no run logs a KL: that panel is left out."""
    figure = learning_curves(found["headline"])
    panels = {ax.get_title(): ax for ax in figure.axes if ax.get_visible()}
    assert list(panels) == ["validation: sampled accuracy", "reward"]
    lines = {line.get_label(): line for line in panels["reward"].get_lines()}
    assert list(lines) == ["GRPO++", "GRPO"]
    assert lines["GRPO"].get_xdata().tolist() == [1, 3, 5]
    assert lines["GRPO"].get_ydata().tolist() == pytest.approx([0.1, 0.5, 0.6])
    band = panels["reward"].collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band.round(6).tolist()} >= {(1.0, 0.0), (1.0, 0.2), (5.0, 0.6)}
    plus = {line.get_label(): line for line in panels["validation: sampled accuracy"].get_lines()}["GRPO++"]
    assert plus.get_ydata()[-1] == pytest.approx(sum(RIGHT["plus"]) / 30)


def test_runs_of_different_lengths_share_an_axis():
    """Of 4 and of 40 steps: half of the training is step 2 of the one and step 20 of the other."""
    runs = [
        replace(record("plus", 0, 8), curves={"train/reward": [(2, 0.2), (4, 0.4)]}),
        replace(record("grpo", 0, 8), curves={"train/reward": [(20, 0.3), (40, 0.6)]}),
    ]
    (ax,) = learning_curves(experiments(STUDY, runs)["headline"]).axes
    assert ax.get_xlabel() == "training done (%)"
    assert [line.get_xdata().tolist() for line in ax.get_lines()] == [[50, 100], [50, 100]]


def test_curves_are_joined_where_all_runs_are():
    """Steps 0, 4 and 2, 6 with values 0, 0.4 and 0.2, 0.6: between 2 and 4 both are 0.2 and 0.4."""
    ends = {"train/loss": [(6, 1.0)]}
    runs = [
        replace(record("plus", 0, 8), curves=ends | {"train/reward": [(0, 0.0), (4, 0.4)]}),
        replace(record("plus", 1, 8), curves=ends | {"train/reward": [(2, 0.2), (6, 0.6)]}),
    ]
    (ax,) = learning_curves(experiments(STUDY, runs)["headline"]).axes
    assert ax.get_lines()[0].get_xydata().ravel().tolist() == pytest.approx([2, 0.2, 4, 0.4])


def test_pictures_are_linked_by_relative_paths(folder, page):
    links = re.findall(r"!\[.+?\]\((.+?)\)", page)
    assert links == ["images/study_headline.svg", "images/study_groups_sizes.svg"]
    assert sorted(links) == sorted(path.relative_to(folder).as_posix() for path in (folder / "images").iterdir())


def test_the_same_records_give_the_same_bytes(folder, page, tmp_path):
    """In whatever order they come, and through the file that they are published in."""
    write_records(tmp_path / "records.jsonl", reversed(headline() + groups()))
    assert written(tmp_path, records=read_records(tmp_path / "records.jsonl")) == page
    for image in (folder / "images").iterdir():
        assert image.read_bytes() == (tmp_path / "images" / image.name).read_bytes()
        assert b"dc:date" not in image.read_bytes()


def test_nothing_run_is_a_page_too(tmp_path):
    page = written(tmp_path, records=[])
    assert "Incomplete: 0 of 12 runs" in page and "It rests on 0 runs" in page and not (tmp_path / "images").exists()


@pytest.mark.slow
def test_the_published_page_is_what_its_records_give(tmp_path):
    """Every number and every picture: nothing on the page was typed in, and nothing is older than its records."""
    docs, plan = REPOSITORY / "docs", REPOSITORY / "study" / "study.yaml"
    needed = [plan, docs / "study" / "records.jsonl", docs / "study.md"]
    missing = [path.relative_to(REPOSITORY).as_posix() for path in needed if not path.exists()]
    if missing:
        pytest.skip(f"not published yet: {', '.join(missing)}")
    study = read_study(plan, FULL, {}).content
    write_page(study, read_records(needed[1]), tmp_path / "docs" / "study.md", tmp_path / "docs" / "images")
    assert (tmp_path / "docs" / "study.md").read_bytes() == needed[2].read_bytes()
    made, shown = (
        {path.name: path.read_bytes() for path in (root / "images").glob("study_*")}
        for root in (tmp_path / "docs", docs)
    )
    assert sorted(made) == sorted(shown)
    assert [name for name in made if made[name] != shown[name]] == []
