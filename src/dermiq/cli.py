"""The command line: ``python cli.py fit|validate|test|predict --config FILE``, also installed as ``dermiq``."""

from __future__ import annotations

import logging
import re
import warnings
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from dermiq.datamodules import DermDataModule
from dermiq.files import write_atomically
from dermiq.modules import StageModule
from dermiq.policy.checkpoint_files import best_checkpoint
from dermiq.programs.exits import exit_codes
from dermiq.programs.options import OneLine
from dermiq.run_directory import RunDirectory, is_adapter_file, no_checkpoint
from dermiq.schema import DermIQError, TrainingError
from dermiq.trainer.callbacks import MetricsTable
from dermiq.trainer.checkpointing import AtomicCheckpointIO, RunCheckpoint
from dermiq.trainer.exclusive_run import Command, ExclusiveRun, is_leader
from dermiq.trainer.preflight import Preflight
from dermiq.trainer.refusals import fitting_callbacks, lightning_worded

BASE_CONFIG = Path(__file__).parent / "configs" / "base.yaml"
SUBCOMMANDS = {
    "fit": "Train one stage, and keep its adapter.",
    "validate": "Judge an adapter on the validation split.",
    "test": "Judge an adapter on the test split, and keep the metrics and every answer.",
    "predict": "Write down what an adapter answers, without judging it.",
}
_USAGE = "%(prog)s --config FILE [--config FILE ...] [--OPTION VALUE ...]"
_EXAMPLES = """\
examples:
  python cli.py fit --config configs/grpo.yaml --data.sources.all.root=PATH/TO/ham10000
  python cli.py fit --config runs/grpo/config.yaml --ckpt_path=last     go on where a run stopped
  python cli.py test --config runs/grpo/config.yaml --ckpt_path=last    judge it
  python cli.py fit --config configs/grpo.yaml --print_config           what a command would run with
  python cli.py fit --model.help GRPOModule                             the options of a class

Other programs: python -m dermiq.quickstart, .tiny, .datamodules.splits, .report, .export, .demo, .kg; each has --help.
Exit code: 0 if all is well, 2 if something has to be mended, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
"""
LIBRARY_NOISE = (  # warnings of libraries about each other, which a user can do nothing about
    r"`is_gradient_checkpointing` is deprecated",  # peft 0.21 asks transformers 5.23 for it
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # lightning 2.6 asks torch 2.15 for it
    r"The '\w+_dataloader' does not have many workers",
)


class SaveFitConfig(SaveConfigCallback):
    """Writes the configuration of training as ``config.yaml``, which the other subcommands read."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it into the run directory, for fit alone and without the options that only fit has."""
        if stage == "fit":
            config = self.config.clone()
            config.pop("preflight")
            config.pop("start_over")
            if isinstance(pl_module, StageModule) and "model.init_args.backbone.init_args" in config:
                config.model.init_args.backbone.init_args.adapter_path = pl_module.backbone.adapter_path
            path = RunDirectory(trainer.default_root_dir).config_file
            write_atomically(path, self.parser.dump(config, skip_none=False))


class _Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """The parser's own layout, with the examples as they stand and options in their short form."""

    def format_help(self) -> str:
        """The whole text, in which the parser gives the options of classes as ``model.init_args.seed``."""
        return re.sub(r"(?<=\w)\.init_args\b", "", super().format_help())


class _Parser(OneLine, LightningArgumentParser):
    """Lightning's parser, whose refusals are one line."""


class DermIQCLI(LightningCLI):
    """LightningCLI with one run directory, ``trainer.default_root_dir``, that holds all a run writes."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the data to the model: the same processor, and a context that holds the longest completion."""
        backbone = "model.init_args.backbone.init_args.model_id"
        parser.link_arguments(backbone, "data.init_args.model_id")
        parser.link_arguments("model.init_args", "data.init_args.max_new_tokens_reserve", longest_completion)

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Add the options of fit alone, and a sentence on each subcommand to the help."""
        super().setup_parser(*args, **kwargs)
        subcommands = self.parser._subcommands_action
        assert subcommands is not None
        for action in subcommands._choices_actions:
            action.help = SUBCOMMANDS[action.dest]
        self._parser("fit").add_argument(
            "--preflight",
            action="store_true",
            help="Before training, run one step on the longest samples, which leaves no trace, and say how much memory "
            "it takes, for how long training will run at most, and what to lower.",
        )
        self._parser("fit").add_argument(
            "--start_over",
            action="store_true",
            help="Begin anew in a directory that holds a run, which is moved into its earlier/ as it is.",
        )

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would read the whole checkpoint for hyperparameters, which ours do not hold."""

    def before_instantiate_classes(self) -> None:
        """Refuse a run directory that is a file, and a missing checkpoint, which Lightning would ignore."""
        config = self.config[self.subcommand]
        root = Path(config.trainer.default_root_dir or ".")
        if root.exists() and not root.is_dir():
            raise TrainingError(f"{root} is a file. Name a directory with --trainer.default_root_dir.")
        path = config.get("ckpt_path")
        if path == "best":
            path = config.ckpt_path = str(best_checkpoint(root))
        if path == "last":
            path = RunDirectory(root).last_checkpoint
        if path is not None and (not Path(path).is_file() or is_adapter_file(path)):
            raise TrainingError(no_checkpoint(path))
        if path is None and self.subcommand != "fit":
            options = config.model.init_args.backbone.init_args
            adapter = f"the adapter {options.adapter_path}" if options.adapter_path else "no trained adapter"
            rank_zero_info(f"No --ckpt_path: this judges {options.model_id} with {adapter}.")

    def instantiate_classes(self) -> None:
        """Build trainer, module and data module; a refused value is reported without the parser's attempts.

        Raises:
            DermIQError: if a class refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise DermIQError(f"The configuration cannot be used: {cause}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs to the run directory by default and writes checkpoints atomically."""
        config = self.config[self.subcommand].trainer
        run = RunDirectory(config.default_root_dir or ".")
        if config.logger is None:
            loggers = MetricsTable(run.path, run.logs.name), TensorBoardLogger(run.path, run.tensorboard.name)
            kwargs["logger"] = list(loggers) if self.subcommand == "fit" else False
        kwargs["plugins"] = [*(self.config_init[self.subcommand].trainer.plugins or []), AtomicCheckpointIO()]
        kwargs["callbacks"] = fitting_callbacks(self.config_init[self.subcommand].trainer)
        with lightning_worded():
            trainer = super().instantiate_trainer(**kwargs)
        if self.config[self.subcommand].get("preflight"):
            trainer.callbacks.insert(0, Preflight())  # type: ignore[attr-defined]  # set by a connector
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, RunCheckpoint):
                callback.dirpath = str(run.checkpoints)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Run it in a directory that no other run uses, with Lightning's own refusals reworded."""
        config = self.config[subcommand]
        with lightning_worded():
            if config.trainer.fast_dev_run or not is_leader():  # one leader acts for all processes
                return super()._run_subcommand(subcommand)
            with ExclusiveRun(Command.parsed(subcommand, config.as_dict())) as directory:
                self.trainer.callbacks.insert(0, directory)  # type: ignore[attr-defined]  # set by a connector
                super()._run_subcommand(subcommand)


def longest_completion(options: Any) -> int:
    """Tokens of the longest completion that a stage with these arguments samples, in training or evaluation."""
    given = [options[name] for name in ("sampling", "eval_sampling") if name in options]
    tokens: list[int] = [one["max_new_tokens"] if isinstance(one, dict) else one.max_new_tokens for one in given]
    return max(tokens)


def run(args: ArgsType = None) -> DermIQCLI:
    """Parse `args` (a list; None takes the shell's) and run the subcommand; errors are raised."""
    for noise in LIBRARY_NOISE:
        warnings.filterwarnings("ignore", message=noise)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    layout = {"formatter_class": _Help}
    each = layout | {"default_config_files": [str(BASE_CONFIG)], "usage": _USAGE}
    return DermIQCLI(
        StageModule,
        DermDataModule,
        parser_class=_Parser,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        save_config_callback=SaveFitConfig,
        save_config_kwargs={"save_to_log_dir": False},
        parser_kwargs={
            **layout,
            "description": "Train and judge a vision-language model that reasons about images of skin.",
            "epilog": _EXAMPLES,
            **{name: each | {"description": text} for name, text in SUBCOMMANDS.items()},
        },
        args=args,
    )


def _no_advertisement(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("💡 Tip:")


def main(args: ArgsType = None) -> None:
    """The program: `run`, with the exit codes of `exit_codes`."""
    with exit_codes():
        run(args)


if __name__ == "__main__":
    main()
