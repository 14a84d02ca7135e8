"""Answers grounded in facts: of the condition that the policy names, never of the one that is true."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

import dermiq.policy.grounding
from dermiq.datamodules.collate import Item, PromptCollate
from dermiq.kg import Retriever
from dermiq.modules import StageModule
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.grounding import diagnose, ground
from dermiq.policy.rollout import Sampling
from dermiq.prompts import QUESTION, SYSTEM_PROMPT
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis
from dermiq.schema import KnowledgeError, Message, ModelError, Sample
from support.images import picture

TOKENS = 6
RETRIEVER = Retriever(budget=60)


@pytest.fixture
def names(backbone, monkeypatch):
    """Let the policy name these conditions in turn; what it writes later is its own."""

    def arrange(*conditions):
        decode, calls = VLMBackbone.decode, []

        def first(self, ids, mask):
            calls.append(len(ids))
            own = decode(self, ids, mask)
            return [f"<think> x </think> <answer> {c} </answer>" for c in conditions] if len(calls) == 1 else own

        monkeypatch.setattr(VLMBackbone, "decode", first)

    return arrange


@pytest.fixture
def prompts(monkeypatch):
    """Every conversation that grounding encodes, call by call."""
    seen, encode = [], dermiq.policy.grounding.encode_prompts

    def spy(processor, conversations, images):
        seen.append(list(conversations))
        return encode(processor, conversations, images)

    monkeypatch.setattr(dermiq.policy.grounding, "encode_prompts", spy)
    return seen


def asking(name="a", **more):
    return Sample(**{"id": name, "images": ("x.png",), "target": "melanoma", "label": "mel", "group": name} | more)


def talking(name="c", **more):
    said = (Message("system", "Be kind."), Message("user", "Hello."), Message("assistant", "Good day."))
    return asking(name, question="Is it contagious?", history=said, reply="No.", **more)


def batch_of(backbone, *samples):
    items = [Item(sample, [picture(i, 48) for i in range(len(sample.images))]) for sample in samples]
    return PromptCollate(backbone.model_id, "Look.", TOKENS)(items)


def judged(backbone, *samples, retriever=RETRIEVER):
    mixture = RewardMixture({"diagnosis": RewardTerm(diagnosis)})
    module = StageModule(backbone, mixture, eval_sampling=Sampling(TOKENS, 0.0), retriever=retriever)
    return module.test_step(batch_of(backbone, *samples), 0)["rows"]


def told(condition, asked=QUESTION, retriever=RETRIEVER):
    return [{"sentence": p.sentence, "citation": p.citation} for p in retriever.retrieve(asked, [condition])]


def text(conversation):
    return " ".join(part["text"] for turn in conversation for part in turn["content"] if "text" in part)


def test_a_diagnosis_is_grounded_in_facts_of_what_the_policy_named(backbone, names, prompts):
    names("Psoriasis.", "the scabies")
    rows = judged(backbone, asking("a"), asking("b"))
    assert [row["grounded_on"] for row in rows] == ["psoriasis", "scabies"]
    assert [row["facts"] for row in rows] == [told("psoriasis"), told("scabies")] and all(r["facts"] for r in rows)
    ((first, second),) = prompts  # the policy was asked for the diagnosis by the batch's own prompt
    for conversation, row in ((first, rows[0]), (second, rows[1])):
        sentences = " ".join(fact["sentence"] for fact in row["facts"])
        assert text(conversation) == f"Look. Facts: {sentences}\n{QUESTION}"
        assert not any(fact["citation"] in text(conversation) for fact in row["facts"])
        assert sum(part["type"] == "image" for turn in conversation for part in turn["content"]) == 1


def test_facts_change_the_prompt_and_the_answer(backbone, names):
    names("psoriasis")
    grounded = judged(backbone, asking())[0]["completion"]
    assert grounded != judged(backbone, asking(), retriever=None)[0]["completion"]


def test_the_truth_is_not_used(backbone, names, prompts):
    """Whatever is known of the samples besides their questions, the same is asked, retrieved and answered."""
    truths = [
        {"target": "melanoma", "label": "mel"},
        {"target": "scabies", "label": "x", "synonyms": ("psoriasis",), "findings": {"colour": ("red",)}},
    ]
    found = []
    for truth in truths:
        names("psoriasis", "psoriasis")
        rows = judged(backbone, replace(asking(), **truth), replace(talking(), **truth))
        found.append([(row["facts"], row["grounded_on"], row["completion"]) for row in rows])
    assert found[0] == found[1] and all(facts for facts, _, _ in found[0])
    assert prompts[:2] == prompts[2:]
    assert {condition for _, condition, _ in found[0]} == {"psoriasis"}


def test_in_a_conversation_the_policy_is_asked_for_the_diagnosis_first(backbone, names, prompts):
    names("scabies", "scabies")
    rows = judged(backbone, talking(), asking())
    asked, answered = prompts
    assert text(asked[0]) == f"{SYSTEM_PROMPT} {QUESTION}" and text(asked[1]) == f"Look. {QUESTION}"
    assert [turn["role"] for turn in asked[0]] == ["system", "user"]
    assert sum(part["type"] == "image" for turn in asked[0] for part in turn["content"]) == 1
    assert rows[0]["facts"] == told("scabies", "Is it contagious?")
    assert text(answered[0]).startswith("Be kind. Hello. Good day. Facts: Scabies is")
    assert text(answered[0]).endswith("\nIs it contagious?")


@pytest.mark.parametrize("named", ["", "martian pox", "scabies or melanoma"])
def test_what_the_graph_does_not_know_grounds_nothing(named, backbone, names, prompts):
    names(named)
    (row,) = judged(backbone, asking())
    assert (row["facts"], row["grounded_on"]) == ([], None) and prompts == []
    assert row["completion"] == judged(backbone, asking(), retriever=None)[0]["completion"]


def test_a_condition_that_the_question_names_needs_no_diagnosis(backbone):
    sample = replace(talking(), question="How is scabies treated?")
    batch = batch_of(backbone, sample)
    grounded = ground(backbone, batch, RETRIEVER, [""], TOKENS)
    assert [fact.sentence for fact in grounded.facts[0]] == [f["sentence"] for f in told("scabies", sample.question)]
    assert grounded.conditions == [""]


def test_without_an_image_there_is_nothing_to_diagnose(backbone, names, prompts):
    names("scabies")
    shown, silent = talking("c"), replace(talking("d"), images=())
    assert diagnose(backbone, {"samples": [silent]}, TOKENS) == [""] and prompts == []
    batch = batch_of(backbone, shown) | {"samples": [silent, shown]}
    batch |= {"messages": [[], *batch["messages"]], "images": [[], *batch["images"]]}
    assert diagnose(backbone, batch, TOKENS) == ["", "scabies"]


def test_the_last_facts_are_dropped_where_the_context_is_too_short(backbone, monkeypatch):
    batch = batch_of(backbone, asking("a"), asking("b"))
    conditions = ["psoriasis", ""]
    whole = ground(backbone, batch, RETRIEVER, conditions, TOKENS)
    length = int(whole.prompt["attention_mask"].sum(1).max()) + TOKENS
    config = backbone.vlm.config.get_text_config()
    for context, kept in ((length, 0), (length - 1, 1)):
        monkeypatch.setattr(config, "max_position_embeddings", context)
        grounded = ground(backbone, batch, RETRIEVER, conditions, TOKENS)
        assert grounded.facts == [whole.facts[0][: len(whole.facts[0]) - kept], []]
        assert int(grounded.prompt["attention_mask"].sum(1).max()) + TOKENS <= context
    monkeypatch.setattr(config, "max_position_embeddings", 10)
    nothing = ground(backbone, batch, RETRIEVER, conditions, TOKENS)
    assert nothing.facts == [[], []] and nothing.prompt is batch["prompt"]
    with pytest.raises(ModelError, match=r"sample 'c'.*does not fit into the 10 tokens"):
        diagnose(backbone, batch_of(backbone, talking()), TOKENS)


def test_a_graph_that_cannot_be_read_is_an_error(backbone, names, tmp_path):
    names("scabies")
    with pytest.raises(KnowledgeError, match=r"none\.owl"):
        judged(backbone, asking(), retriever=Retriever(tmp_path / "none.owl"))


def test_validation_is_of_the_policy_alone(backbone):
    module = StageModule(backbone, RewardMixture({"diagnosis": RewardTerm(diagnosis)}), retriever=RETRIEVER)
    module.eval_sampling = Sampling(TOKENS, 0.0)
    (row,) = module.validation_step(batch_of(backbone, asking()), 0)["rows"]
    assert "facts" not in row


@pytest.mark.parametrize("subcommand", ["predict", pytest.param("test", marks=pytest.mark.slow)])
def test_the_command_line(subcommand, lab, tmp_path, monkeypatch):
    said = "<think> x </think> <answer> scabies </answer>"
    monkeypatch.setattr(VLMBackbone, "decode", lambda self, ids, mask: [said] * len(ids))
    option = "--model.retriever"
    options = [f"{option}=dermiq.kg.Retriever", f"{option}.init_args.budget=40", "--data.limit={test: 2}"]
    lab.run(subcommand, "SFTModule", tmp_path, *options)
    if subcommand == "test":
        rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    else:
        rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert rows and all(row["grounded_on"] == "scabies" and row["target"] != "scabies" for row in rows)
    assert all(row["facts"] == told("scabies", retriever=Retriever(budget=40)) for row in rows)
