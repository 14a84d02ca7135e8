"""What the command line says of a wrong option, value, class or file: one line, with the right name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dermiq.cli import main
from dermiq.programs.arguments import nearest
from dermiq.programs.exits import exit_codes

CONFIG = Path(__file__).parents[2] / "configs" / "grpo.yaml"


@pytest.fixture
def said(capsys, monkeypatch):
    """The one line that a command line is refused with."""

    def say(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["fit", f"--config={CONFIG}", *arguments])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("dermiq: ") and "class_path is where" not in line
        return line

    return say


UNKNOWN = [  # as given -> as meant
    ("seed_everythin=1", "seed_everything"),
    ("ckpt_pth=last", "ckpt_path"),
    ("trainer.max_step=4", "trainer.max_steps"),
    ("trainer.max-steps=4", "trainer.max_steps"),
    ("trainer={max_stesp: 3}", "trainer.max_steps"),
    ("modle.group_size=3", "model.group_size"),
    ("model.group_sise=4", "model.group_size"),
    ("model.init_args.group_sise=4", "model.group_size"),
    ("model.backbone.modle_id=x", "model.backbone.model_id"),
    ("model.backbone.lora.rnak=4", "model.backbone.lora.rank"),
    ('model.backbone.lora={"rnak": 4}', "model.backbone.lora.rank"),
    ("model.optimizer.lrr=1", "model.optimizer.lr"),
    ("model.optimiser.lr=1", "model.optimizer.lr"),
    ("model.sampling.temprature=1", "model.sampling.temperature"),
    ("model.advantage.ancor=1", "model.advantage.anchor"),
    ("model.rewards.terms.diagnosis.wieght=1", "model.rewards.terms.diagnosis.weight"),
    ("model.rewards.terms.diagnosi.weight=1", "model.rewards.terms.diagnosis.weight"),
    ("data.batchsize=4", "data.batch_size"),
    ("data.sources.all.rot=3", "data.sources.all.root"),
    ("data.sources.al.root=x", "data.sources.all.root"),
    ("lr=1", "model.optimizer.lr"),
    ("model.lora.rank=3", "model.backbone.lora.rank"),
]


@pytest.mark.parametrize(("given", "meant"), UNKNOWN)
def test_an_unknown_option_names_the_nearest(given, meant, said):
    assert said(f"--{given}").endswith(f"; did you mean --{meant}?")


WRONG = [
    ("trainer.max_steps=abc", "--trainer.max_steps takes a whole number, not 'abc'."),
    ("model.group_size=abc", "--model.group_size takes a whole number, not 'abc'."),
    ("model.optimizer.lr=fast", "--model.optimizer.lr takes a number, not 'fast'."),
    ("model.backbone.load_in_4bit=maybe", "--model.backbone.load_in_4bit takes true or false, not 'maybe'."),
    ("model.backbone.lora.rank=x", "--model.backbone.lora.rank takes a whole number, not 'x'."),
    ("model.sampling=3", "--model.sampling takes names with values, not '3'."),
    ("trainer.precision=bf16mixed", "did you mean bf16-mixed?"),
    ("model=GRPOModul", "did you mean dermiq.modules.GRPOModule?"),
    ("model.advantage=OutcomeAnchord", "did you mean dermiq.objectives.advantages.OutcomeAnchored?"),
    (
        "model.advantage.class_path=dermiq.advantges.OutcomeAnchored",
        "did you mean dermiq.objectives.advantages.OutcomeAnchored?",
    ),
    ("model.rewards.terms.diagnosis.fn=dermiq.rewards.diagnosi", "did you mean dermiq.rewards.diagnosis?"),
    ("data.sources.all.class_path=dermiq.datamodules.sources.HAM1000", "dermiq.datamodules.sources.HAM10000?"),
    (
        "trainer.callbacks+=dermiq.trainer.callbacks.LogCompletion",
        "did you mean dermiq.trainer.callbacks.LogCompletions?",
    ),
    (  # in modules that nothing has imported yet
        "trainer.callbacks+=dermiq.trainer.preferences.WritePreference",
        "did you mean dermiq.trainer.preferences.WritePreferences?",
    ),
    ("data.sources.all=PhantomSourc", "did you mean dermiq.datamodules.phantom.PhantomSource?"),
    ("trainer.logger=Tensorboard", "did you mean lightning.pytorch.loggers.TensorBoardLogger?"),
    ("model=dermiq.datamodules.PromptDataModule", "takes a class of the kind StageModule"),
    ("model.backbone=configs/backbone/tiny.yam", "names a file configs/backbone/tiny.yam, which is not there"),
]


@pytest.mark.parametrize(("given", "text"), WRONG)
def test_a_wrong_value_says_what_is_wanted(given, text, said):
    assert text in said(f"--{given}")


OVERLAYS = [
    ("trainre:\n  max_epochs: 1\n", "line 2: there is no option trainre.max_epochs; did you mean trainer.max_epochs?"),
    ("model:\n  init_args:\n    group_sise: 3\n", "line 3: there is no option model.group_sise"),
    ("model:\n  group_sise: 3\n", "did you mean model.group_size?"),
    ("model:\n  init_args:\n    sampling: [1]\n", "line 3: model.sampling takes names with values, not '[1]'."),
    ("trainer: [1]\n", "line 1: trainer takes names with values"),
    (
        "trainer:\n  callbacks:\n    - class_path: dermiq.trainer.callbacks.RunProgressBar\n"
        "    - class_path: dermiq.trainer.callbacks.LogCompletions\n      init_args: {every_n_step: 3}\n",
        "line 5: there is no option trainer.callbacks.every_n_step; did you mean trainer.callbacks.every_n_steps?",
    ),
    ("trainer:\n  callbacks: [RunProgresBar]\n", "did you mean dermiq.trainer.callbacks.RunProgressBar?"),
    (
        "model:\n  init_args:\n    rewards:\n      terms:\n        kg:\n"
        "          fn: {class_path: dermiq.kg.KGPrecision, init_args: {ontolgy: x}}\n          weight: 1\n",
        "no option model.rewards.terms.kg.fn.ontolgy; did you mean model.rewards.terms.kg.fn.ontology?",
    ),
    (
        "model: {class_path: dermiq.modules.SFTModule}\n",
        "model is a dermiq.modules.SFTModule here",
    ),
]


@pytest.mark.parametrize(("content", "text"), OVERLAYS)
def test_a_file_is_named_with_its_line(content, text, said, tmp_path):
    (tmp_path / "over.yaml").write_text(content)
    line = said(f"--config={tmp_path / 'over.yaml'}")
    assert text in line and line.startswith(f"dermiq: {tmp_path / 'over.yaml'}, line ")


FINDINGS = "terms:\n  findings: {fn: dermiq.rewards.findings, weight: 0.5}\n"
PARTS = [
    (FINDINGS.replace("weight", "wieght"), ", line 2: there is no option model.rewards.terms.findings.wieght; did you"),
    (FINDINGS.replace("0.5", "abc"), ", line 2: model.rewards.terms.findings.weight takes a number, not 'abc'."),
    (FINDINGS.replace("rewards.f", "rewards.F"), ", line 2: model.rewards.terms.findings.fn names"),
    (FINDINGS + "gate: {format: x}\n", ", line 3: there is no option model.rewards.gate.format; did you mean"),
    (FINDINGS * 2, " cannot be read, line 3: the key 'terms' stands in line 1 already"),
]


@pytest.mark.parametrize(("content", "text"), PARTS)
def test_a_file_within_a_file_is_named_with_its_line(content, text, said, tmp_path):
    (tmp_path / "over.yaml").write_text("model: {init_args: {rewards: parts/part.yaml}}\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part.yaml").write_text(content)
    assert said(f"--config={tmp_path / 'over.yaml'}").startswith(f"dermiq: {tmp_path / 'parts' / 'part.yaml'}{text}")


def test_a_file_within_a_file_may_be_absent_or_the_same(said, tmp_path):
    (tmp_path / "over.yaml").write_text("model: {init_args: {rewards: part.yaml}}\n")
    wrong = f"dermiq: {tmp_path / 'over.yaml'}, line 1: model.rewards names a file part.yaml, which is not there. "
    assert said(f"--config={tmp_path / 'over.yaml'}").startswith(f"{wrong}A relative path begins at the file that")
    (tmp_path / "loop.yaml").write_text("model: {init_args: {rewards: loop.yaml}}\n")
    assert str(tmp_path / "loop.yaml") in said(f"--config={tmp_path / 'loop.yaml'}")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
ODD = {
    "bomb": (BOMB.encode(), "more than 100,000 values"),
    "alias of itself": (b"trainer: &a\n  max_epochs: *a\n", "line 2: the alias *a stands within the"),
    "alias of nothing": (b"trainer: *b\n", "line 1: the alias *b repeats a value that is not there"),
    "deep list": (b"trainer: " + b"[" * 1500 + b"]" * 1500, "nested more than 100 deep"),
    "deep mapping": ("".join(f"{' ' * i}a:\n" for i in range(1600)).encode(), "nested more than 100 deep"),
    "twice": (b"trainer:\n  max_epochs: 1\n  max_epochs: 2\n", "line 3: the key 'max_epochs' stands in line 2 already"),
    "twice in a line": (b"model: {init_args: {optimizer: {init_args: {lr: 1, lr: 2}}}}\n", "the key 'lr' stands"),
    "tab": (b"trainer:\n\tmax_epochs: 1\n", "line 2: a tab stands where YAML wants spaces"),
    "latin-1": ("a: 1\ntrainer: {default_root_dir: gr\xf6\xdfe}\n".encode("latin-1"), "line 2: this is no UTF-8"),
    "utf-16": ("trainer: {max_epochs: 1}\n".encode("utf-16"), "this is no UTF-8"),
    "utf-16 without mark": ("trainer: {max_epochs: 1}\n".encode("utf-16-le"), "it holds zero bytes"),
    "empty": (b"", "holds nothing"),
    "comments": (b"# nothing\n", "holds nothing"),
    "list": (b"- a\n", "holds a list"),
    "text": (b"hello\n", "holds a single value"),
    "two documents": (b"a: 1\n---\na: 2\n", "expected a single document"),
    "python": (b"a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    "no end": (b"trainer: {max_epochs: 1\n", "this is no YAML"),
    "large": (b"x" * 5_000_000, "too many for a file of YAML"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_refused(name, said, tmp_path):
    content, text = ODD[name]
    (tmp_path / "odd.yaml").write_bytes(content)
    assert f"{tmp_path / 'odd.yaml'}" in (line := said(f"--config={tmp_path / 'odd.yaml'}")) and text in line
    # the same as a part of a configuration
    part = said(f"--model.backbone={tmp_path / 'odd.yaml'}")
    assert str(tmp_path / "odd.yaml") in part or "takes" in part


def test_what_is_no_regular_file(said, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe or a device" in said(f"--config={tmp_path / 'pipe'}")
    assert "is a directory" in said(f"--config={tmp_path}")
    assert said("--config=") == "dermiq: --config needs a file, such as configs/grpo.yaml."


def test_a_missing_file_names_the_nearest(said):
    configs = CONFIG.parent
    assert said(f"--config={configs / 'grpoo.yaml'}").endswith(f"; did you mean {configs / 'grpo.yaml'}?")
    near = configs.parent / "config" / "grpo.yaml"
    assert said("--config", str(near)).endswith(f"; did you mean {configs / 'grpo.yaml'}?")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Say what to do: fit, validate, test, predict."),
        (["fti"], "did you mean fit?"),
        (["--config=x.yaml", "fit"], "Options stand behind the subcommand: fit --config=x.yaml"),
        (["fit"], "Name an experiment with --config, such as configs/grpo.yaml."),
        (["fit", "--config"], "needs a value"),
        (["fit", f"--config={CONFIG}", "oops"], "'oops' stands alone"),
    ],
)
def test_a_command_that_is_not_whole(arguments, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and line.startswith("dermiq: ") and text in line


def test_nearest():
    assert nearest("Max-Step", ["max_epochs", "max_steps"]) == "max_steps"
    assert nearest("zebra", ["max_epochs"]) is None


# The other programs


def refused(run, arguments, capsys):
    try:
        with exit_codes():
            code = run(arguments)
    except SystemExit as stopped:
        code = stopped.code
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and line.startswith("dermiq: ")
    return line


@pytest.mark.parametrize(
    ("program", "arguments", "text"),
    [
        ("dermiq.kg", ["scor"], "There is no command 'scor'; did you mean score?"),
        ("dermiq.kg", ["score", "--conditon", "x"], "There is no option --conditon; did you mean --condition?"),
        ("dermiq.kg", ["retrieve", "x", "--budget=0"], "--budget"),
        ("dermiq.kg", ["describe", "nonsuchitis"], "nonsuchitis"),
        ("dermiq.report", ["run", "--ot=x"], "There is no option --ot; did you mean --out?"),
        ("dermiq.report", ["run"], "--out is missing."),
        ("dermiq.report", ["compare", "a", "b", "--out=x.txt"], "the file's ending says what to write"),
        ("dermiq.export", ["run", "--out=x", "--mergd"], "did you mean --merged?"),
        ("dermiq.demo", ["--prot=3"], "did you mean --port?"),
        ("dermiq.demo", ["--samples=many"], "--samples takes a whole number from 1 on, not 'many'."),
        ("study", ["--page-olny"], "did you mean --page-only?"),
        ("dermiq.tiny", ["--ot=x"], "did you mean --out?"),
        ("dermiq.tiny", ["--out=x", "--seed=one"], "--seed takes a whole number, not 'one'."),
        ("dermiq.datamodules.phantom", ["--preveiw=x"], "did you mean --preview?"),
    ],
)
def test_every_program_says_it_alike(program, arguments, text, capsys):
    module = __import__(f"{program}.__main__", fromlist=["main"])
    assert text in refused(module.main, arguments, capsys)


def test_the_quickstart_and_the_splits_too(capsys):
    from dermiq import quickstart
    from dermiq.datamodules.splits.__main__ import main as splits

    assert "did you mean --seeds?" in refused(quickstart.main, ["--sed=1"], capsys)
    assert "did you mean --out?" in refused(splits, ["--ot=1"], capsys)
    assert "--seed takes a whole number, not 'one'." in refused(splits, ["--seed=one", "--out=x"], capsys)


@pytest.mark.slow
def test_the_module_is_a_program():
    result = subprocess.run([sys.executable, "-m", "dermiq.cli", "fti"], capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stderr.splitlines()[-1].startswith("dermiq: There is no command 'fti'")
