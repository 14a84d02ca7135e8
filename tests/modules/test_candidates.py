"""Candidates: what is drawn for a question, with and without facts, and what decides it."""

import pytest
import torch

from dermiq.datamodules.collate import Item, PromptCollate
from dermiq.kg import Retriever
from dermiq.modules import CandidateModule
from dermiq.policy.rollout import Sampling
from dermiq.prompts import QUESTION
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis
from dermiq.schema import Sample, TrainingError
from support.images import picture


def module_of(backbone, **options):
    mixture = RewardMixture({"diagnosis": RewardTerm(diagnosis)})
    return CandidateModule(backbone, mixture, **{"candidates": 4, "sampling": Sampling(5)} | options)


def sample_of(name, **more):
    return Sample(**{"id": name, "images": ("x.png",), "target": "melanoma", "label": "mel", "group": "g"} | more)


def records_of(module, *samples):
    collate = PromptCollate(module.backbone.model_id, "Look.", 5)
    batch = collate([Item(sample, [picture(len(sample.id), 48)]) for sample in samples])
    return module.predict_step(batch, 0)["records"]


def test_half_of_the_candidates_know_the_facts(backbone):
    retriever = Retriever(budget=40)
    (record,) = records_of(module_of(backbone, candidates=5, retriever=retriever), sample_of("a"))
    *plain, first, second = record.pop("candidates")
    facts = [passage.sentence for passage in retriever.retrieve(QUESTION, ["melanoma"])]
    assert [(one["grounded"], one["facts"]) for one in plain] == [(False, [])] * 3
    assert [(one["grounded"], one["facts"]) for one in (first, second)] == [(True, facts)] * 2 and facts
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    assert record == {
        "id": "a", "group": "g", "target": "melanoma", "asks_diagnosis": True, "question": QUESTION,
        "messages": [{"role": "system", "content": [{"type": "text", "text": "Look."}]}, user], "images": ["x.png"],
    }  # fmt: skip
    for one in (*plain, first, second):
        assert 1 <= one["length"] <= 5 and 0 < one["confidence"] <= 1
        assert one["finished"] or one["length"] == 5
    assert len({one["completion"] for one in (*plain, first, second)}) == 5


@pytest.mark.parametrize(("options", "target"), [({}, "melanoma"), ({"retriever": Retriever()}, "")])
def test_without_facts_all_prompts_are_plain(options, target, backbone):
    (record,) = records_of(module_of(backbone, **options), sample_of("a", target=target))
    assert [(one["grounded"], one["facts"]) for one in record["candidates"]] == [(False, [])] * 4
    assert len({one["completion"] for one in record["candidates"]}) == 4


def test_neither_batch_nor_order_decides_what_is_drawn(backbone):
    module = module_of(backbone, retriever=Retriever(budget=40))
    together = records_of(module, sample_of("a"), sample_of("bb"))
    assert together == [*records_of(module, sample_of("a")), *records_of(module, sample_of("bb"))]
    assert together != records_of(
        module_of(backbone, retriever=Retriever(budget=40), seed=1), *map(sample_of, ("a", "bb"))
    )


def test_what_is_done_is_not_drawn_again(backbone):
    module = module_of(backbone)
    module.done = {"a", "bb"}
    assert records_of(module, sample_of("a"), sample_of("bb")) == []
    assert [record["id"] for record in records_of(module, sample_of("a"), sample_of("c"))] == ["a", "c"]


def test_the_hash_is_that_of_the_weights(backbone, family_dir):
    module = module_of(backbone)
    before = module.policy
    assert before["model_id"] == str(family_dir("idefics3")) and before["adapter"] is None
    weight = backbone.trainable_parameters()[0]
    with torch.no_grad():
        weight.view(-1)[0] += 1e-3
        changed = module.policy
        weight.view(-1)[0] -= 1e-3
    assert changed["weights"] != before["weights"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 1}, "candidates is at least 2"),
        ({"sampling": Sampling(5, 0.0)}, "temperature must be above 0"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        module_of(None, **options)


def test_there_is_nothing_to_fit(backbone):
    with pytest.raises(TrainingError, match="run it with `predict`"):
        module_of(backbone).setup("fit")
    module_of(backbone).setup("predict")
