"""Records of a small made-up study, with numbers that can be checked by hand."""

from study.record import Outcomes, Record

CLASSES = ("melanoma", "mole")
MAJORITY = {"experiment": "headline", "domain": "new", "metric": "majority"}
STUDY = {
    "testbeds": {"phantom": {"start": "warm_start"}},
    "starts": {"warm_start": {"title": "warm start", "kind": "start", "size": 400}},
    "variants": {
        "plus": {"title": "GRPO++", "kind": "rl"},
        "grpo": {"title": "GRPO", "kind": "rl"},
        "sft": {"title": "SFT", "kind": "supervised"},
        "kl": {"title": "no KL penalty", "kind": "rl", "tuned_as": "plus"},
    },
    "settings": {"": {"title": "as above"}, "g4": {"title": "G = 4"}},
    "experiments": {
        "headline": {
            "title": "Little data", "text": "What it is about.", "notes": "What came of it.", "testbed": "phantom",
            "variants": ["warm_start", "plus", "grpo", "sft"], "sizes": [64], "settings": [""], "seeds": [0, 1, 2],
            "domains": {"new": "adapted to", "old": "warm start's"}, "of": "plus", "against": ["grpo", "sft"],
            "metrics": ["majority", "sampled"], "curves": ["val/sampled_accuracy", "train/reward", "train/kl"],
        },
        "groups": {
            "title": "Small groups", "text": "", "testbed": "phantom", "variants": ["warm_start", "plus", "grpo"],
            "sizes": [32, 64], "settings": ["", "g4"], "seeds": [0, 1, 2], "domains": {"new": "adapted to"},
            "of": "plus", "against": ["grpo"], "metrics": ["majority"],
        },
    },
    "tuning": {
        "phantom": {
            "variants": ["plus", "sft"], "seed": 100, "rates": {"rl": [1e-4, 3e-4], "supervised": [3e-4, 1e-3]},
        },
    },
    "claims": [
        {
            "source": "Paper A", "claim": "RL beats SFT.", "reported": "58 against 52 %",
            "measured": MAJORITY | {"better": "plus", "worse": "sft"},
        },
        {
            "source": "Paper A", "claim": "GRPO beats GRPO++.", "method": "with our part",
            "measured": MAJORITY | {"better": "grpo", "worse": "plus"},
        },
        {
            "source": "Paper A", "claim": "SFT beats GRPO.",
            "measured": MAJORITY | {"better": "sft", "worse": "grpo"},
        },
        {
            "source": "Paper A", "claim": "Larger groups are better.",
            "measured": {
                "experiment": "groups", "domain": "new", "metric": "majority", "size": 64,
                "better": "plus", "worse": "plus", "worse_setting": "g4",
            },
        },
        {"source": "Paper B", "claim": "DPO repairs facts.", "elsewhere": "See the results."},
    ],
}  # fmt: skip
# Right answers of the ten test questions: variant -> one number per seed.
RIGHT = {"warm_start": (5, 5, 4), "plus": (8, 9, 8), "grpo": (6, 6, 6), "sft": (6, 7, 3)}


def outcomes(right, n=10, **more):
    """The first `right` of n questions are answered rightly, the others with the other class; samples alike."""
    target = tuple(i % 2 for i in range(n))
    hits = tuple(int(i < right) for i in range(n))
    given = {
        "target": target,
        "classes": CLASSES,
        "greedy": hits,
        "majority": hits,
        "named": tuple(t if hit else 1 - t for t, hit in zip(target, hits, strict=True)),
        "sampled": tuple(0.5 * hit + 0.25 for hit in hits),
        "truthful": (0.5,) * n,
        "recalled": (0.25,) * n,
    }
    return Outcomes(**given | more)


def record(variant, seed, right, setting="", size=64, **more):
    """A run that answered `right` of ten questions of the new domain, and three of the old one."""
    reward = {} if variant == "sft" else {"train/reward": ((1, 0.1 * seed), (3, 0.5), (5, 0.6))}
    given = {
        "name": f"phantom/{variant}/{setting}/n{size}/seed{seed}",
        "testbed": "phantom",
        "variant": variant,
        "setting": setting,
        "size": 400 if variant == "warm_start" else size,
        "seed": seed,
        "fingerprint": "0",
        "rate": 3e-4,
        "seconds": {"train": 100.0 + seed, "test": 50.0},
        "curves": {"val/sampled_accuracy": ((0, 0.3), (5, right / 10))} | reward,
        "best_step": 4,
        "validation": 0.5,
        "domains": {"new": outcomes(right), "old": outcomes(3)},
    }
    return Record(**given | more)


def tuning_record(variant, rate, validation):
    return record(
        variant, 100, 0, rate=rate, validation=validation, domains={}, name=f"phantom/tuning/{variant}/rate{rate:g}"
    )


def headline():
    """All runs of the first experiment, and of the tuning."""
    tested = [record(variant, seed, right) for variant, rights in RIGHT.items() for seed, right in enumerate(rights)]
    tuned = [("plus", 1e-4, 0.625), ("plus", 3e-4, 0.75), ("sft", 3e-4, 0.5), ("sft", 1e-3, 0.5)]
    return [*tested, *(tuning_record(*each) for each in tuned)]


def groups():
    """Runs of the second experiment that the first one lacks; some of those of GRPO with small groups are missing."""
    found = [record("plus", seed, right, size=32) for seed, right in enumerate((6, 6, 6))]
    found += [record("grpo", seed, right, size=32) for seed, right in enumerate((5, 6, 5))]
    found += [record("plus", seed, right, setting="g4") for seed, right in enumerate((7, 8, 7))]
    return [*found, record("grpo", 0, 4, setting="g4"), record("grpo", 1, 6, setting="g4")]
