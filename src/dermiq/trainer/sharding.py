"""Frozen weights sharded over processes: FSDP2 for the base, DDP for the adapters on it."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from dermiq.modules import DPOModule, StageModule
from dermiq.schema import TrainingError


class ShardedStrategy(DDPStrategy):
    """Lightning's DDP, whose processes keep one part each of the frozen weights in the decoder layers.

    A layer's weights are gathered before its forward and again before its backward pass, and freed after (Zhao et al.
    2023, arXiv:2304.11277, by `torch.distributed.fsdp.fully_shard`). Adapters and all else that is trained stay whole
    in every process, and DDP averages their gradients: optimiser, clipping, checkpoints and ``adapter/`` are those of
    any other run. So do the vision tower, the embeddings and the output layer, which not every process uses in
    every batch, or as a whole.

    Gathering needs all processes at the same layer, or they wait for each other for ever. Where they run the model a
    different number of times, every process holds all weights: in evaluation, in all of GRPO++ (completions
    differ in length and in number of micro-batches), and in a step in which one of them has no readable image.

    Args:
        kwargs: arguments of `DDPStrategy`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._layers: list[FSDPModule] = []

    @property
    def stage(self) -> StageModule:
        """The module that is trained."""
        assert isinstance(self.lightning_module, StageModule), "ShardedStrategy trains DermIQ's stages"
        return self.lightning_module

    def model_to_device(self) -> None:
        """Shard the layers, one by one, so that no device ever holds all of them; what trains nothing stays whole.

        Raises:
            TrainingError: if the weights are in 4 bits, or the stage keeps the reference's log-probs.
        """
        backbone = self.stage.backbone
        if self.stage.trainer.state.fn == TrainerFn.FITTING and not self._layers:
            self._refuse()
            kept = backbone.adapter_keys()
            whole = {parameter for name, parameter in backbone.named_parameters() if name in kept}
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            for layer in backbone.vlm.get_decoder().layers:
                # Each layer is a root of its own, so that it makes no difference which module around it is called.
                self._layers.append(fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole))
        super().model_to_device()

    def configure_ddp(self) -> None:
        """Keep what is sharded from DDP, which would send all weights of the first process to the others."""
        sharded = [name for name, parameter in self.stage.named_parameters() if isinstance(parameter, DTensor)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.stage, sharded)
        super().configure_ddp()

    def training_step(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """A step, with all weights in every process where the processes may differ in what they run."""
        rollout = not self.stage.automatic_optimization
        self._hold(rollout or self.reduce_boolean_decision(not batch["samples"], all=False))
        return super().training_step(batch, *args, **kwargs)

    def on_validation_start(self) -> None:
        """Gather all weights: processes may differ in their number of batches."""
        self._hold(True)

    def on_validation_end(self) -> None:
        """Free them."""
        self._hold(False)

    def on_train_end(self) -> None:
        """Free what the last step may have held."""
        self._hold(False)

    def _hold(self, whole: bool) -> None:
        """Keep all layers whole until further notice, or free them; all processes call this alike."""
        for layer in self._layers:
            layer.set_reshard_after_forward(not whole)
            layer.set_reshard_after_backward(not whole)
            if whole:
                layer.unshard()
            else:
                layer.reshard()

    def _refuse(self) -> None:
        if self.stage.backbone.load_in_4bit:
            raise TrainingError(
                "Weights in 4 bits cannot be sharded. Train with --trainer.strategy=ddp, for which "
                "they are small enough, or with --model.backbone.load_in_4bit=false."
            )
        if isinstance(self.stage, DPOModule) and self.stage.reference_cache is not None:
            raise TrainingError(
                "With sharded weights all processes compute the reference's log-probs together, but a "
                "reference_cache lets one of them leave it out. Set --model.reference_cache=null, or train "
                "with --trainer.strategy=ddp."
            )
