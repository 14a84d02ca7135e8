"""Rollouts by a vLLM server, against a stand-in that really samples: the policy it samples from is the trainer's."""

import json
import logging
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA
from dermiq.policy.prefix import prefill, score
from dermiq.policy.processing import encode_prompts
from dermiq.policy.rollout import sample_rollout
from dermiq.policy.sampling import Sampling
from dermiq.policy.vllm_protocol import Completion, to_tensors
from dermiq.policy.vllm_server import VLLMServer
from dermiq.prompts import to_messages
from dermiq.schema import Sample, TrainingError
from support.images import picture
from support.runs import logged
from support.vllm import StubServer

FAMILY = "qwen2_5_vl"  # its generation_config asks for a repetition penalty, which a rollout has to switch off


@pytest.fixture(scope="module")
def policy(family_dir):
    torch.manual_seed(0)
    made = VLMBackbone(str(family_dir(FAMILY)), LoRA(rank=4))
    made.load()
    return made


@pytest.fixture(scope="module")
def base(family_dir):
    """A policy without an adapter, which is sooner there."""
    made = VLMBackbone(str(family_dir(FAMILY)), lora=None)
    made.load()
    return made


@pytest.fixture(scope="module")
def running(family_dir):
    made = StubServer(family_dir(FAMILY)).start()
    yield made
    made.stop()


@pytest.fixture
def server(running):
    running.reset()
    return running


def batch_of(backbone, *ids):
    """Two prompts of different length: with one image, and with two between texts."""
    samples = [
        Sample(
            id=name,
            images=("a.png", "b.png")[: 1 + i % 2],
            target="melanoma",
            label="mel",
            group=name,
            question="What is it?" if i % 2 == 0 else "Which condition do these two photographs of a lesion show?",
        )
        for i, name in enumerate(ids)
    ]
    images = [[picture(j, 48) for j in range(len(sample.images))] for sample in samples]
    messages = [to_messages(sample, "Look.") for sample in samples]
    prompt = encode_prompts(backbone.processor, messages, images)
    return {"prompt": prompt, "samples": samples, "messages": messages, "images": images}


def change(backbone, seed):
    """What an optimiser step does to an adapter, only more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.trainable_parameters():
            parameter.normal_(0.0, 0.3, generator=generator)


def complete(engine, backbone, batch, sampling, group_size=2, seed="0"):
    with backbone.sampling_mode():
        return engine.complete(backbone, batch, sampling, group_size, seed)


def trainers_logprobs(backbone, batch, sampled, temperature):
    rows = torch.arange(len(batch["samples"])).repeat_interleave(len(sampled.ids) // len(batch["samples"]))
    with torch.no_grad():
        return score(
            backbone, prefill(backbone, batch["prompt"]), rows, sampled.ids, sampled.mask, temperature
        ).logprobs


def test_the_server_follows_the_policy(policy, server):
    """Adapter, temperature, banned tokens and prompts are the trainer's, or the log-probs would not be."""
    engine, batch, sampling = VLLMServer(server.url), batch_of(policy, "a", "b"), Sampling(6, temperature=0.8)
    seen = []
    for version in (1, 2):
        change(policy, version)
        sampled = complete(engine, policy, batch, sampling)
        assert sampled.ids.shape == sampled.mask.shape == sampled.logprobs.shape and len(sampled.ids) == 4
        assert sampled.mask.dtype == torch.bool and not policy.banned[sampled.ids].any()
        ours = trainers_logprobs(policy, batch, sampled, sampling.temperature)
        assert (sampled.logprobs - ours).abs().max() < 1e-5
        seen.append((sampled, ours))
    sampled, ours = seen[0]
    stale = trainers_logprobs(policy, batch, sampled, sampling.temperature)
    assert (stale - ours).abs().max() > 0.1  # the versions differ by far more than the tolerance above


def test_one_version_of_the_adapter_is_there_at_a_time(policy, server):
    engine, batch = VLLMServer(server.url), batch_of(policy, "a")
    for version in (1, 1, 2):
        change(policy, version)  # the second time the weights are written anew, and are the same
        complete(engine, policy, batch, Sampling(1))
    first, second = server.bodies("/load_lora_adapter")
    assert first["lora_name"] != second["lora_name"]  # a prefix cache knows an adapter by its name
    assert server.bodies("/unload_lora_adapter") == [{"lora_name": first["lora_name"]}]
    assert list(server.adapters) == [second["lora_name"]]
    assert not Path(first["lora_path"]).exists()
    assert (Path(second["lora_path"]) / "adapter_model.safetensors").is_file()
    del engine
    assert not Path(second["lora_path"]).exists()


def test_a_policy_without_adapter_is_the_base(base, server):
    batch = batch_of(base, "a")
    sampled = complete(VLLMServer(server.url), base, batch, Sampling(4))
    assert not server.bodies("/load_lora_adapter")
    assert (sampled.logprobs - trainers_logprobs(base, batch, sampled, 1.0)).abs().max() < 1e-5


def test_seed_sample_and_place_decide(base, server):
    engine, sampling = VLLMServer(server.url), Sampling(4)
    batch = batch_of(base, "a", "b", "a")
    sampled, again = (complete(engine, base, batch, sampling, 2, "0") for _ in range(2))
    other = complete(engine, base, batch, sampling, 2, "1")
    alone = complete(engine, base, batch_of(base, "a"), sampling, 2, "0")
    assert torch.equal(sampled.ids, again.ids) and not torch.equal(sampled.ids, other.ids)
    for i in range(2):
        assert sampled.ids[i][sampled.mask[i]].tolist() == alone.ids[i][alone.mask[i]].tolist()
    assert len({tuple(sampled.ids[i].tolist()) for i in (0, 1, 4, 5)}) == 4  # twice the same sample and prompt


def test_special_tokens_in_a_question_are_words_to_the_server(base, server):
    """They are broken in what is sent, as the server knows nothing of how the trainer reads texts."""
    batch = batch_of(base, "a")
    sample = replace(batch["samples"][0], question="<image>Is it <|im_end|> or <|image_pad|>?")
    messages = [to_messages(sample, "See <|vision_start|>.")]
    batch |= {"samples": [sample], "messages": messages}
    batch["prompt"] = encode_prompts(base.processor, messages, batch["images"])
    complete(VLLMServer(server.url), base, batch, Sampling(2))
    sent = json.dumps(server.bodies("completions")[-1]["messages"], ensure_ascii=False)
    assert "See <\u200b|vision_start|>." in sent and "<\u200b|im_end|>" in sent and "<|" not in sent


def test_greedy_completions_are_sampled_once(base, server):
    batch = batch_of(base, "a", "b")
    sampled = complete(VLLMServer(server.url), base, batch, Sampling(4, temperature=0.0), group_size=3)
    assert {body["n"] for body in server.bodies("completions")} == {1}
    assert torch.equal(sampled.ids[0], sampled.ids[2]) and torch.equal(sampled.ids[3], sampled.ids[5])
    local = sample_rollout(base, batch, Sampling(4, temperature=0.0), group_size=3)
    assert torch.equal(local.ids, sampled.ids) and (local.logprobs - sampled.logprobs).abs().max() < 1e-5


def test_completions_end_with_a_stop(base, server):
    """A text that a completion has written already, asked for as a stop, ends it with the token that completes it."""
    engine, batch = VLLMServer(server.url), batch_of(base, "a")
    free = complete(engine, base, batch, Sampling(8), group_size=1)
    word = base.decode(free.ids[:, 2:3], free.mask[:, 2:3])[0]
    cut = complete(engine, base, batch, Sampling(8, stop=(word,)), group_size=1)
    assert word in base.decode(cut.ids, cut.mask)[0] and cut.ids.shape[1] <= 3 < free.ids.shape[1]
    (row,) = cut.ids.tolist()
    assert row == free.ids[0, : len(row)].tolist()


# What goes wrong


def refusal(engine, backbone, sampling=Sampling(3)):  # noqa: B008 (frozen)
    with pytest.raises(TrainingError) as caught:
        complete(engine, backbone, batch_of(backbone, "case-1"), sampling)
    return str(caught.value)


def test_no_server(base, server):
    closed = StubServer(Path(server.name))
    closed.server_close()
    message = refusal(VLLMServer(closed.url), base)
    assert "Connection refused" in message and "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve" in message


def test_a_server_that_does_not_answer(base, server):
    server.delay = 0.5
    message = refusal(VLLMServer(server.url, timeout=0.1), base)
    assert "/v1/chat/completions: no answer within 0.1 seconds (`timeout`)" in message


def test_another_program_on_the_port(base, server, monkeypatch):
    monkeypatch.setattr(server, "answer", lambda path, body: "<html>")
    assert "is no vLLM server" in refusal(VLLMServer(server.url), base)


@pytest.mark.parametrize(
    ("launched", "text"),
    [
        ({"logprobs_mode": "raw_logprobs"}, r"from before temperature and banned tokens: -\d+\.\d+ .*--logprobs-mode"),
        ({"updating": False}, r"load_lora_adapter: 404 Not Found\. .*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        ({"max_lora_rank": 2}, r"500 LoRA rank 4 is greater than max_lora_rank 2\. .*--max-lora-rank"),
    ],
)
def test_a_server_that_was_launched_otherwise(launched, text, policy, server):
    for name, value in launched.items():
        setattr(server, name, value)
    assert re.search(text, refusal(VLLMServer(server.url), policy))


def test_no_room_for_the_completion(base, server):
    """Unasked, vLLM writes as much as its context holds."""
    server.max_model_len = batch_of(base, "case-1")["prompt"]["input_ids"].shape[1] + 2
    assert "after 2 of 500 tokens ('length')" in refusal(VLLMServer(server.url), base, Sampling(500))


def test_another_model(base, server):
    message = refusal(VLLMServer(server.url, model="google/gemma-3-4b-it"), base)
    assert f"serves {server.name}, not 'google/gemma-3-4b-it'" in message


def test_a_server_that_was_started_anew(policy, server, caplog):
    engine = VLLMServer(server.url)
    change(policy, 1)
    complete(engine, policy, batch_of(policy, "a"), Sampling(1))
    server.adapters.clear()
    assert re.search(r"404 The model `dermiq-adapter-\w+` does not exist\.", refusal(engine, policy))
    change(policy, 2)
    with caplog.at_level(logging.WARNING):
        complete(engine, policy, batch_of(policy, "a"), Sampling(1))
    assert "could not be unloaded" in caplog.text and len(server.adapters) == 1


def put(*path, value):
    """Sets one entry of a reply."""

    def spoil(reply):
        *way, last = path
        for key in way:
            reply = reply[key]
        reply[last] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (put("prompt_token_ids", value=None), "returned 2 of 2 completions, and no token ids .*0.10.2 or newer"),
        (put("choices", 0, "token_ids", value=None), "returned 0 token ids, 3 log-probs"),
        (put("choices", 0, "logprobs", value=None), "returned 3 token ids, 0 log-probs"),
        (put("choices", 0, "logprobs", "content", 0, "logprob", value=-9999.0), "log-probs are not finite"),
        (put("choices", 0, "logprobs", "content", 0, "logprob", value=math.nan), "log-probs are not finite"),
        (put("choices", 0, "logprobs", "content", 0, "logprob", value=None), "log-probs are not finite"),
        (put("choices", 0, "finish_reason", value="abort"), r"after 3 of 3 tokens \('abort'\)"),
        (lambda reply: reply["choices"].pop(), "returned 1 of 2 completions"),
        (lambda reply: reply["prompt_token_ids"].pop(0), r"another prompt .* part at token 0: .*chat template"),
        (lambda reply: reply["prompt_token_ids"].append(9), r"another prompt .* \d+ tokens in place of \d+\."),
    ],
)
def test_replies_that_cannot_be_learnt_from(spoil, text, base, server):
    server.spoil = spoil
    message = refusal(VLLMServer(server.url), base)
    assert message.startswith("sample 'case-1': ") and re.search(text, message)


def test_a_token_that_a_policy_may_not_write(base, server):
    banned = int(base.banned.nonzero()[-1])
    server.spoil = put("choices", 0, "token_ids", 0, value=banned)
    assert f"wrote token {banned}, which a policy may not write" in refusal(VLLMServer(server.url), base)


def test_weights_that_are_not_finite(family_dir, server):
    broken = VLMBackbone(str(family_dir(FAMILY)), LoRA(rank=4))
    broken.load()
    with torch.no_grad():
        broken.trainable_parameters()[0].fill_(math.nan)
    assert "500" in refusal(VLLMServer(server.url), broken)


def test_an_adapter_that_vllm_would_leave_out(family_dir, server):
    seeing = VLMBackbone(str(family_dir(FAMILY)), LoRA(targets=("q_proj", "qkv"), rank=2, vision=True))
    seeing.load()
    assert "more than the language model" in refusal(VLLMServer(server.url), seeing)
    assert not server.bodies("/load_lora_adapter")


def test_more_banned_tokens_than_vllm_has_room_for(policy, server, monkeypatch):
    monkeypatch.setattr(policy, "banned", torch.ones(2000, dtype=torch.bool))
    assert "2000 tokens that a policy may not write, and vLLM can hold down 1024" in refusal(
        VLLMServer(server.url), policy
    )


@pytest.mark.parametrize("arguments", [{"url": "localhost:8000"}, {"timeout": 0.0}])
def test_arguments_that_make_no_sense(arguments):
    with pytest.raises(ValueError, match=r"a server needs a url such as|timeout is above 0"):
        VLLMServer(**arguments)


def test_grpo_through_a_server(lab, tmp_path, family_dir):
    """Two steps of a whole run: the second rollout is sampled from the policy that the first step made."""
    server = StubServer(family_dir("idefics3")).start()
    try:
        engine = "--model.engine"
        options = (f"{engine}=dermiq.policy.vllm_server.VLLMServer", f"{engine}.init_args.url={server.url}")
        lab.run("fit", "GRPOModule", tmp_path, "--trainer.max_steps=2", *options)
    finally:
        server.stop()
    assert len(server.bodies("/load_lora_adapter")) == 2 and len(server.bodies("/unload_lora_adapter")) == 1
    rows = [row for row in logged(tmp_path) if row.get("train/clip_fraction")]
    assert rows and all(float(row["train/clip_fraction"]) == 0 for row in rows)


def test_log_probs_stay_float32_where_the_trainer_changes_the_default():
    """As `--trainer.precision=bf16-true` does."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        made = to_tensors([Completion([5, 6], [-1.2345678, -0.5]), Completion([7], [-2.0])], 0, torch.device("cpu"))
    finally:
        torch.set_default_dtype(torch.float32)
    assert made.logprobs.dtype == torch.float32
    torch.testing.assert_close(made.logprobs, torch.tensor([[-1.2345678, -0.5], [-2.0, 0.0]]))
