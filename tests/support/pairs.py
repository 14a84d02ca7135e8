"""A run that writes preference pairs about five synthetic lesions, with a policy that is made to speak."""

import os
from dataclasses import replace

import pytest
import yaml
from lightning.pytorch.callbacks import Callback

from dermiq.datamodules.phantom import PhantomConversations
from support.runs import REWARDS


class NamedLesions(PhantomConversations):
    """Lesions whose question names the condition, since an untrained model's answers do not."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return replace(sample, question=f"This is {sample.target}. {sample.question}")


LESIONS = NamedLesions(5, seed=4, kinds=["contagion"])


STOPS = tuple(range(0, 480, 5))  # an untrained model seldom finds the token that ends a completion


def speak(ids, mask):
    """What an untrained model would say if it could: for each completion [N, T] something of its own."""
    numbers = [int(row[kept].sum()) for row, kept in zip(ids, mask, strict=True)]
    return [
        f"It is {'not contagious' if number % 2 else 'contagious for sure'}, they say in chapter {number}."
        for number in numbers
    ]


class Speak(Callback):
    """Teaches the policy to `speak`, and to come to an end."""

    def on_predict_start(self, trainer, pl_module):
        pl_module.backbone.decode, pl_module.backbone.stop_ids = speak, STOPS


class KillAt(Callback):
    """Dies for good before batch number `batch`."""

    def __init__(self, batch):
        self.batch = batch

    def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == self.batch:
            os.kill(os.getpid(), 9)


@pytest.fixture(scope="module")
def pairs_config(tmp_path_factory, family_dir):
    pairs = {"scorer": {"class_path": "dermiq.kg.KGScorer"}, "margin": 0.5}
    writer = {"pairs": {"class_path": "dermiq.kg.PairMaker", "init_args": pairs}}
    model = {
        "backbone": {
            "class_path": "dermiq.policy.backbone.VLMBackbone",
            "init_args": {"model_id": str(family_dir("idefics3")), "lora": {"rank": 2}},
        },
        "rewards": REWARDS,
        "retriever": {"class_path": "dermiq.kg.Retriever", "init_args": {"budget": 40}},
        "sampling": {"max_new_tokens": 6, "temperature": 1.0, "stop": []},
        "eval_sampling": {"max_new_tokens": 6, "temperature": 0.0},
        "candidates": 6,
    }
    options = {"count": len(LESIONS), "seed": 4, "kinds": ["contagion"]}
    lesions = {"class_path": "support.pairs.NamedLesions", "init_args": options}
    callbacks = [
        {"class_path": "dermiq.trainer.callbacks.WritePredictions"},  # as in base.yaml
        {"class_path": "dermiq.trainer.preferences.WritePreferences", "init_args": writer},
        {"class_path": "support.pairs.Speak"},
    ]
    content = {
        "trainer": {"accelerator": "cpu", "callbacks": callbacks},
        "model": {"class_path": "dermiq.modules.CandidateModule", "init_args": model},
        "data": {
            "class_path": "dermiq.datamodules.PromptDataModule",
            "init_args": {"sources": {"test": lesions}, "eval_batch_size": 2, "system_prompt": "Look."},
        },
    }
    path = tmp_path_factory.mktemp("config") / "pairs.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
