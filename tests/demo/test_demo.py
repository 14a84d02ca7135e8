"""The demo without its page: photographs, streaming, evidence, the differential, what is shown, arguments."""

import base64
import struct
import sys
import threading
import time
import zlib
from io import BytesIO

import pytest
import torch
from PIL import Image

from dermiq.demo import photograph
from dermiq.demo.__main__ import QUICKSTART, chosen, main
from dermiq.demo.answers import Answers
from dermiq.demo.evidence import Expert
from dermiq.demo.policy import Policy
from dermiq.demo.reading import Differential, Reader, Reading, Turn
from dermiq.demo.view import marked, problem, view
from dermiq.policy.rollout import Sampling, sample_rollout
from dermiq.programs.exits import exit_codes
from dermiq.schema import DataError, ModelError, TrainingError
from support.demo import SECRET, photograph_with_a_place
from support.images import picture

MARKUP = "<script>alert(1)</script><img src=x onerror='alert(2)'>"


def data_url(content: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def test_a_photograph_is_turned_upright_and_nothing_of_its_place_survives():
    content = photograph_with_a_place()
    with Image.open(BytesIO(content)) as before:
        assert before.getexif().get_ifd(0x8825)[2] == (51.0, 30.0, 0.0) and content.count(SECRET) == 4
    kept = photograph.from_data_url(data_url(content))
    assert (kept.mode, kept.size, kept.info, dict(kept.getexif())) == ("RGB", (48, 64), {}, {})
    assert kept.getpixel((40, 8))[1] < 60 < 200 < kept.getpixel((8, 8))[1]  # red is top right now
    shown = base64.b64decode(photograph.to_data_url(kept).partition(",")[2])
    with Image.open(BytesIO(shown)) as image:
        assert not image.getexif() and not {"exif", "comment", "icc_profile"} & image.info.keys()
    assert SECRET not in shown and b"Exif" not in shown and SECRET not in kept.tobytes()


def claims_to_measure(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [claims_to_measure(60_000, 60_000), claims_to_measure(8_000, 8_000), b"no image", b"", b"<svg></svg>"],
    ids=["bomb", "64 megapixels", "text", "empty", "svg"],
)
def test_what_is_no_photograph_is_refused_in_a_plain_sentence(content):
    with pytest.raises(DataError, match=r"cannot be used\. A photograph has at most 20 MB and 50 megapixels"):
        photograph.from_data_url(data_url(content))


def test_a_file_of_too_many_bytes_is_refused_before_it_is_opened(monkeypatch):
    monkeypatch.setattr(photograph, "MAX_BYTES", 1_000)
    monkeypatch.setattr(photograph, "open_image", None)
    with pytest.raises(DataError, match="too large"):
        photograph.read(bytes(1_001))
    with pytest.raises(DataError, match="too large"):
        photograph.from_data_url(data_url(bytes(1_005)))
    with pytest.raises(DataError, match="did not arrive whole"):
        photograph.from_data_url("data:image/png;base64,%%%")


def test_no_more_pixels_are_kept_than_a_model_looks_at():
    file = BytesIO()
    Image.new("RGB", (3000, 1500)).save(file, "PNG")
    assert photograph.read(file.getvalue()).size == (1024, 512)


def test_a_synthetic_lesion():
    image, condition = photograph.synthetic_lesion()
    assert image.size == (96, 96) and Expert().evidence("", condition) is not None


@pytest.fixture(scope="module")
def policy(backbone):
    return Policy(backbone, max_new_tokens=12)


def test_what_is_streamed_is_what_greedy_decoding_gives(policy, monkeypatch):
    monkeypatch.setattr("dermiq.demo.policy._PACE", 0.0)
    asked = policy.converse(picture(0, 48), "What is it?")
    steps = [texts[0] for texts in policy.answers(asked)]
    plain = sample_rollout(policy.backbone, {**asked.batch}, Sampling(12, temperature=0.0))
    assert steps[-1] == plain.answers[0][0].text and len(steps) == plain.lengths[0, 0] + 1
    assert len({len(step) for step in steps}) > 3 and all(steps[-1].startswith(step) for step in steps)
    special = policy.backbone.processor.tokenizer.all_special_tokens
    assert special and not any(token in step for token in special for step in steps)


def test_a_browser_is_not_told_more_often_than_it_keeps_up_with(policy, monkeypatch):
    monkeypatch.setattr("dermiq.demo.policy._PACE", 60.0)
    first, *rest = (texts[0] for texts in policy.answers(policy.converse(picture(0, 48), "What is it?")))
    assert len(rest) == 1 and rest[0].startswith(first) and len(first) < len(rest[0])


def test_answers_are_sampled_from_the_same_prefix_as_the_rollout_samples_them(policy):
    asked = policy.diagnose(picture(1, 48))
    *_, texts = policy.answers(asked, count=4, temperature=1.0)
    plain = sample_rollout(policy.backbone, asked.batch, Sampling(12), group_size=4)
    assert texts == [answer.text for answer in plain.answers[0]] and len(set(texts)) > 1


def test_whoever_stops_listening_stops_the_writing(policy):
    before, threads = {n: p.clone() for n, p in policy.backbone.named_parameters()}, threading.active_count()
    answers = policy.answers(policy.diagnose(picture(2, 48)))
    next(answers)
    answers.close()
    assert threading.active_count() == threads
    assert all(torch.equal(p, before[n]) for n, p in policy.backbone.named_parameters())


def test_a_broken_policy_is_told_to_whoever_listens(policy):
    asked = policy.diagnose(picture(3, 48))
    broken = asked._replace(prefix=policy.diagnose(picture(3, 48)).prefix)
    broken.prefix.last_state.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite on the samples photograph"):
        list(policy.answers(broken))


class Learnt(Policy):
    """Answers as a trained policy would, word by word; training one takes half an hour."""

    texts = ("<think> a burrow , it itches </think> <answer> Scabies </answer>",)
    said = "It is caused by a mite and is not contagious."

    def answers(self, asked, count=1, temperature=0.0):
        whole = [self.said] if asked.batch["samples"][0].question else [*self.texts] * count
        for end in range(1, max(len(text.split(" ")) for text in whole) + 1):
            yield [" ".join(text.split(" ")[:end]) for text in whole]


@pytest.fixture(scope="module")
def reader(backbone):
    return Reader(Learnt(backbone, 12), samples=3)


def test_a_reading_grows_step_by_step(reader):
    steps = list(reader.read(picture(0, 48), "what is the diagnosis", Reading()))
    assert [step.turns[-1].text for step in steps[1:5]] == [
        "<think>",
        "<think> a",
        "<think> a burrow",
        "<think> a burrow ,",
    ]
    assert [(step.turns[-1].reasoning, step.turns[-1].answer) for step in steps[7:10:2]] == [
        ("a burrow , it itches", ""),
        ("a burrow , it itches", "Scabies"),
    ]
    last = steps[-1]
    assert (last.named, last.evidence.condition, last.doing) == ("Scabies", "scabies", "")
    assert last.differential == Differential((("scabies", 3),), 0, 3)
    assert {step.differential.unreadable for step in steps if step.differential} == {None, 0}


def test_a_follow_up_is_conversation_about_the_condition_that_was_named(reader):
    *_, first = reader.read(picture(0, 48), "", Reading())
    *_, second = reader.read(picture(0, 48), "Is it contagious?", first)
    assert [turn.question for turn in second.turns] == ["", "Is it contagious?"]
    assert (second.named, second.differential) == (first.named, first.differential)
    assert [claim.judgement for claim in second.evidence.claims] == ["supported", "contradicted"]
    asked = []
    reader.policy.converse = lambda *args: asked.append(args) or Learnt.converse(reader.policy, *args)
    list(reader.read(picture(0, 48), "How is it treated?", second))
    assert [(m.role, m.text) for m in asked[0][2]] == [("user", "Is it contagious?"), ("assistant", Learnt.said)]


def test_a_free_question_comes_first_and_the_condition_is_named_all_the_same(reader):
    *_, last = reader.read(picture(0, 48), "Is it contagious?", Reading())
    assert last.turns == (Turn("Is it contagious?", Learnt.said),) and last.named == "Scabies"


def test_stopping_drops_what_tells_nothing_yet(reader):
    steps = list(reader.read(picture(0, 48), "", Reading()))
    assert steps[0].stopped() == Reading()
    assert steps[4].stopped().turns == steps[4].turns and steps[4].stopped().doing == ""
    assert steps[-3].differential and steps[-3].stopped().differential is None
    assert steps[-1].stopped() == steps[-1]


def test_the_differential_counts_names_by_what_they_mean(reader):
    said = ["psoriasis", "the scabies", "Psoriasis vulgaris", "Scabies.", "itch mite infestation", "glimmer spot"]
    texts = [f"<think> x </think> <answer> {name} </answer>" for name in said]
    counted = reader.count([*texts, "<think> unfinished", "scabies"])
    assert counted == Differential((("scabies", 3), ("psoriasis", 2), ("glimmer spot", 1)), unreadable=2, sampled=8)


def test_evidence_names_the_words_the_verdicts_and_the_works():
    text = "Scabies is caused by a mite, itches at night and is not contagious."
    found = Expert().evidence(text, "scabies", "Is it contagious?")
    told = {text[slice(*claim.place)]: claim for claim in found.claims}
    assert [claim.judgement for claim in told.values()].count("contradicted") == 1
    wrong = told["contagious"]
    assert wrong.judgement == "contradicted" and wrong.sentence == "Scabies is not contagious."
    sentence, work = wrong.facts[0]
    assert sentence.startswith("Scabies is always contagious") and work
    assert list(told) == sorted(told, key=text.index)
    assert any(passage.fact.relation == "contagious" and passage.citation for passage in found.passages)
    assert Expert().evidence(text, "glimmer spot") is None and Expert().evidence(text, "") is None


def test_a_diagnosis_is_not_held_against_itself():
    claims = Expert().evidence("The diagnosis is scabies. It is not psoriasis.", "scabies").claims
    assert claims == ()


def test_strangers_texts_are_escaped_wherever_they_are_shown(reader):
    evil = f"It is {MARKUP} contagious"
    claims = Expert().evidence(evil, "scabies").claims
    assert claims and "<script" not in marked(evil, claims) and "<img" not in marked(evil, claims)
    turns = (Turn(MARKUP, f"<think> {MARKUP} </think> <answer> {MARKUP} </answer>"), Turn(MARKUP, evil))
    differential = Differential(((MARKUP, 2),), 1, 3)
    for named in (MARKUP, "scabies"):
        evidence = Expert().evidence(evil, named)
        html = "".join(view(Reading(turns, named, evidence, differential, doing=MARKUP))) + problem(MARKUP)
        html += "".join(view(Reading(turns, named, evidence, differential)))
        assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html


def test_marks_stand_on_the_words_that_were_judged():
    text = "It is caused by a mite & is not contagious."
    html = marked(text, Expert().evidence(text, "scabies").claims)
    assert "<mark class='supported'" in html and ">mite</mark>" in html and "&amp; is not" in html
    assert "<mark class='contradicted'" in html and ">contagious</mark>." in html


def test_what_is_shown_of_a_finished_reading(reader):
    *_, last = reader.read(picture(0, 48), "", Reading())
    shown = view(last)
    assert "<h2>What is the diagnosis?</h2>" in shown.answer and "<p class='named'>Scabies</p>" in shown.answer
    assert shown.status == "" and "<cite>" in shown.evidence and "No clinician has reviewed" in shown.evidence
    assert "width:100%" in shown.differential and "3 of 3" in shown.differential


def test_an_answer_that_names_no_condition_of_the_graph_is_said_to_have_no_evidence():
    finished = Reading((Turn("", "x"),), "glimmer spot", None, Differential((), 2, 2))
    assert "knows no condition called “glimmer spot”" in view(finished).evidence
    assert "No readable answer" in view(finished).differential
    assert "No condition was named" in view(Reading((Turn("", "x"),), "", None, Differential((), 2, 2))).evidence


def test_without_arguments_it_shows_what_the_quickstart_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="make quickstart"):
        chosen(None, None, tmp_path / "tiny")
    QUICKSTART.mkdir(parents=True)
    assert chosen(None, None, tmp_path / "tiny") == (str(tmp_path / "tiny"), str(QUICKSTART))
    assert (tmp_path / "tiny" / "config.json").is_file()


def test_an_adapter_brings_its_model_and_a_model_needs_none(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model"}')
    assert chosen(None, tmp_path, tmp_path / "tiny") == ("some/model", str(tmp_path))
    assert chosen("other", tmp_path, tmp_path / "tiny") == ("other", str(tmp_path))
    assert chosen("other", None, tmp_path / "tiny") == ("other", None)
    with pytest.raises(ModelError, match="does not say which model it adapts"):
        chosen(None, tmp_path / "nowhere", tmp_path / "tiny")


def test_without_gradio_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "dermiq.demo.page", raising=False)
    with pytest.raises(SystemExit) as ended, exit_codes():
        main(["--model", "never/loaded"])
    assert ended.value.code == 2 and 'pip install "dermiq[demo]"' in capsys.readouterr().err


def told(count, closed):
    """Readings that say how many there were, and when they are closed."""
    try:
        yield from (Reading(named=str(number)) for number in range(count))
    finally:
        closed.append(True)


def test_an_answer_that_comes_to_its_end_is_forgotten():
    answers, closed = Answers(), []
    assert [reading.named for reading in answers.follow("a", told(3, closed))] == ["0", "1", "2"]
    assert closed and answers.end("a") is None


def test_whoever_ends_an_answer_waits_for_its_end_and_learns_how_far_it_came():
    answers, closed, ended = Answers(), [], []
    mine, another = answers.follow("a", told(9, closed)), answers.follow("b", told(2, []))
    next(mine), next(mine), next(another)
    waiting = threading.Thread(target=lambda: ended.append(answers.end("a")))
    waiting.start()
    while "a" in answers._written:
        time.sleep(0.001)
    assert not ended, "it waits for the answer to notice"
    assert list(mine) == [] and closed
    waiting.join()
    assert ended == [Reading(named="1")] and len(list(another)) == 1


def test_an_answer_that_nobody_listens_to_any_more_ends_too():
    answers, closed = Answers(), []
    mine = answers.follow("a", told(9, closed))
    next(mine)
    mine.close()
    assert closed and answers.end("a") is None


@pytest.mark.parametrize("option", ["--samples", "--max-new-tokens", "--port"])
def test_numbers_that_make_no_sense(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([option, "0"])
    assert "must be at least 1" in capsys.readouterr().err
