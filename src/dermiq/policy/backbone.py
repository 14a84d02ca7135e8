"""The policy: any Hugging Face image-text-to-text model with a trainable adapter, and its reference policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedModel

from dermiq.policy.adapter_files import beside, load_adapter
from dermiq.policy.adapters import folded, in_float32, keep_unpacked, merged, quiet
from dermiq.policy.hub import from_hub, load_processor
from dermiq.policy.image_features import ImageFeatures
from dermiq.policy.layer_memory import offload_layers, recompute_layers
from dermiq.policy.logprobs import Output
from dermiq.policy.lora import LoRA
from dermiq.policy.processing import ProcessorMixin, banned_ids, stop_ids, texts_of
from dermiq.run_directory import found_adapter
from dermiq.schema import ModelError

POLICY, REFERENCE = "default", "reference"


class VLMBackbone(nn.Module):
    """A vision-language model with a trainable LoRA adapter, and its reference policy.

    Construction is cheap; `load` reads the weights. The base is frozen and keeps its own dtype; adapter
    weights are float32 whatever precision the trainer asks for.

    Args:
        model_id: Hugging Face id or local directory.
        lora: the adapter to train; None leaves the model as it is.
        adapter_path: PEFT adapter directory of an earlier stage, to train on. A frozen copy of it is the reference.
        load_in_4bit: quantise the base's linear layers to NF4 with double quantisation (bitsandbytes).
        dtype: of the base's weights: ``auto`` (as saved) or a torch dtype's name.
        attn_implementation: a name that transformers knows (``sdpa``, ``eager``, ``flash_attention_2``).
        gradient_checkpointing: recompute decoder layers in the backward pass.
        offload_activations: keep what decoder layers save for the backward pass in main memory instead.

    Attributes (once loaded):
        processor: the model's own processor.
        stop_ids: token ids that end a completion.
        banned: [V] bool, tokens that a policy may not sample.
    """

    banned: Tensor
    stop_ids: tuple[int, ...]
    processor: ProcessorMixin

    def __init__(
        self,
        model_id: str,
        lora: LoRA | None = LoRA(),  # noqa: B008 (frozen)
        adapter_path: str | None = None,
        load_in_4bit: bool = False,
        dtype: str = "auto",
        attn_implementation: str = "sdpa",
        gradient_checkpointing: bool = False,
        offload_activations: bool = False,
    ) -> None:
        super().__init__()
        if gradient_checkpointing and offload_activations:
            raise ValueError("gradient_checkpointing and offload_activations exclude each other: the first saves more")
        self.model_id = model_id
        self.lora = lora
        found = found_adapter(adapter_path) if adapter_path else None
        self.adapter_path = str(found) if found else adapter_path
        self.load_in_4bit = load_in_4bit
        self.dtype = dtype
        self.attn_implementation = attn_implementation
        self.gradient_checkpointing = gradient_checkpointing
        self.offload_activations = offload_activations
        self.model: PreTrainedModel | PeftModel | None = None

    def load(self) -> None:
        """Read weights and processor, add the adapters; idempotent.

        Raises:
            ModelError: if the directory is no VLM, or the adapter does not fit it.
        """
        if self.model is not None:
            return
        processor = load_processor(self.model_id)
        base = from_hub(
            AutoModelForImageTextToText.from_pretrained,
            self.model_id,
            dtype=self.dtype,
            attn_implementation=self.attn_implementation,
            quantization_config=self._quantisation(),
            use_safetensors=True,
        )
        self.attach(base, processor)

    def attach(self, base: PreTrainedModel, processor: ProcessorMixin) -> None:
        """Take a loaded model in place of reading one, and add the adapters.

        Raises:
            ModelError: if the adapter does not fit it, or its output layer is no plain one.
        """
        self.processor = processor
        base.requires_grad_(False)
        keep_unpacked(base)
        self.model = base
        if self.adapter_path is not None:
            self.model = load_adapter(base, Path(self.adapter_path), self.model_id)
            self.add_reference()
        elif self.lora is not None:
            self.model = get_peft_model(base, LoraConfig(**self.lora.options(base, self.model_id)))
        if self.gradient_checkpointing:
            recompute_layers(self.vlm.get_decoder())
        elif self.offload_activations:
            offload_layers(self.vlm.get_decoder())
        inner = self.vlm.model
        inner.get_image_features = ImageFeatures(inner.get_image_features, self.vlm.dtype, self._frozen_images())
        self.stop_ids = stop_ids(self.processor, self.vlm.generation_config.eos_token_id)
        self.register_buffer("banned", banned_ids(self.processor, self.vlm.config, self.stop_ids), persistent=False)
        self._keep_adapters_in_float32()
        self.output_layer(restricted=True)  # refuses a layer that cannot be used now, before training

    @property
    def vlm(self) -> PreTrainedModel:
        """The transformers model, with the adapters' layers in place."""
        assert self.model is not None, "call load() first"
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        return cast(PreTrainedModel, base)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The policy's adapter weights, float32."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def adapter_keys(self) -> set[str]:
        """Names of all adapter weights in this module's state dict, the reference's included."""
        if not isinstance(self.model, PeftModel):
            return set()
        frozen = {name for name, _ in self.named_parameters() if f".{REFERENCE}." in name}
        return frozen | {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The reference policy within the context: the frozen incoming adapter, or the base without adapters."""
        if not isinstance(self.model, PeftModel):
            yield
        elif REFERENCE in self.model.peft_config:
            self.model.set_adapter(REFERENCE, inference_mode=True)
            try:
                yield
            finally:
                self.model.set_adapter(POLICY)
        else:
            with self.model.disable_adapter():
                yield

    def add_reference(self) -> None:
        """Freeze a copy of the policy's adapter as the reference; idempotent."""
        assert isinstance(self.model, PeftModel), "a reference copy needs an adapter"
        if REFERENCE not in self.model.peft_config:
            with quiet():
                self.model.add_adapter(REFERENCE, beside(self.model.peft_config[POLICY]))
            self.sync_reference()
            self.model.set_adapter(POLICY)
            self._keep_adapters_in_float32()

    def sync_reference(self) -> None:
        """Copy the policy's adapter into the reference."""
        assert isinstance(self.model, PeftModel)
        with quiet():
            weights = get_peft_model_state_dict(self.model, adapter_name=POLICY)
            set_peft_model_state_dict(self.model, {k: v.clone() for k, v in weights.items()}, adapter_name=REFERENCE)

    def train(self, mode: bool = True) -> VLMBackbone:
        """Set training or evaluation mode; frozen batch norms use their running statistics in both."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
                module.eval()
        return self

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """Evaluation mode within the context; restores the former mode even on error."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    @contextmanager
    def sampling_mode(self) -> Iterator[None]:
        """Evaluation mode without gradients, within the context."""
        with self.without_dropout(), torch.no_grad():
            yield

    @contextmanager
    def folded(self) -> Iterator[None]:
        """The policy's adapter merged into float32 weights within the context, for passes without gradient."""
        with folded(self, POLICY):
            yield

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """Texts of completions [N, T] under mask [N, T], without special tokens, with what the chat template opened."""
        return texts_of(self.processor, ids, mask)

    def output_layer(self, restricted: bool) -> Output:
        """The output layer; `restricted` bans the tokens that a policy may not sample.

        Raises:
            ModelError: if it is no plain linear layer.
        """
        layer = self.vlm.get_output_embeddings()
        if isinstance(layer, ModulesToSaveWrapper):
            layer = layer.original_module if layer.disable_adapters else layer.modules_to_save[layer.active_adapters[0]]
        if type(layer) is not nn.Linear:
            raise ModelError(
                f"The output layer of {self.model_id!r} is adapted or quantised, and has to be a plain linear one: "
                "leave it out of lora.targets and of the quantisation. To train it, name it in lora.fully_trained."
            )
        return Output(layer.weight, layer.bias, self.banned if restricted else None)

    def save_adapter(self, directory: str | Path) -> None:
        """Write the policy's adapter in PEFT's format, which the next stage, peft and vLLM read."""
        if isinstance(self.model, PeftModel):
            with quiet():
                self.model.save_pretrained(str(directory), selected_adapters=[POLICY])

    def save_merged(self, directory: str | Path) -> None:
        """Write model and processor with the policy's adapter merged; the backbone must not be used afterwards.

        Weights are in the base's dtype. A 4-bit base is dequantised in main memory first, so that they keep its
        rounding. Call this before its first forward pass, in which bitsandbytes rounds biases for good.

        Raises:
            ModelError: if peft cannot merge an adapter of this kind.
        """
        assert isinstance(self.model, PeftModel), "nothing to merge: the backbone has no adapter"
        self.model = merged(self.model, POLICY, self.load_in_4bit)
        self.model.save_pretrained(str(directory))
        self.processor.save_pretrained(str(directory))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VLMBackbone:
        """Move or cast the module as torch does, but keep adapter weights in float32."""
        keys = self.adapter_keys()
        masters = {name: parameter.data for name, parameter in self.named_parameters() if name in keys}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, parameter in self.named_parameters():
            if name in keys and parameter.dtype != torch.float32:
                parameter.data = masters[name].to(parameter.device)
        return self

    def _keep_adapters_in_float32(self) -> None:
        """Cast adapter weights to float32, and the inputs of modules trained as a whole to match."""
        keys = self.adapter_keys()
        for name, parameter in self.named_parameters():
            if name in keys and parameter.dtype != torch.float32:
                parameter.data = parameter.data.float()
        for module in self.modules():
            if isinstance(module, ModulesToSaveWrapper):
                for copy in module.modules_to_save.values():
                    if "forward" not in vars(copy):
                        copy.forward = in_float32(copy.forward)

    def _quantisation(self) -> BitsAndBytesConfig | None:
        """NF4 with double quantisation (Dettmers et al. 2023, arXiv:2305.14314); None unless `load_in_4bit`."""
        if not self.load_in_4bit:
            return None
        compute = torch.bfloat16 if self.dtype == "auto" else getattr(torch, self.dtype)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )

    def _frozen_images(self) -> bool:
        """True if no weight outside the language model is trained."""
        language = {id(parameter) for parameter in self.vlm.get_decoder().parameters()}
        return all(id(p) in language for p in self.vlm.model.parameters() if p.requires_grad)
