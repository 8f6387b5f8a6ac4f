"""The `image-layers` referee: distance to a reference image in the activations of a CLIP, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from refcore import images
from refcore.contracts.conditioning import Conditioning
from refcore.contracts.referee import Referee
from refcore.engine.views import centred
from refcore.errors import RefcoreError
from refcore.plugin import PluginConfig
from refcore_plugins.models.open_clip_towers import OpenClipTowers


class ImageLayers(Referee):
    """How far the activations of a view are from those of a reference image in the same view: CLIPasso's loss.

    `sum_l w_l mean (a_l(view) - a_l(reference))^2 + w (1 - cos(e(view), e(reference)))` with activations a_l of the
    layers and the embedding e. Early and middle layers hold the geometry, the embedding the content. The reference has
    the same random changes as the image, so geometric augmentations do not move one against the other. The prompt is
    ignored. Source: Vinker et al., "CLIPasso" (SIGGRAPH 2022, arXiv 2202.05822), section 3.2.
    """

    class Config(PluginConfig):
        local_fields = MappingProxyType({"reference": "name an image file"})
        reference: str = Field(description="File of the reference image.")
        model: str = Field("playground:clip", description="An open_clip model, as in the referee `clip`.")
        pretrained: str | None = Field(
            None, description="Weights of a model given by name: a tag of open_clip, or a safetensors file."
        )
        layers: dict[str, float] = Field(
            min_length=1,
            description="Modules of the image tower, such as layer2 of a ResNet or transformer.resblocks.3 of a ViT, "
            "and the weight of each one's mean squared distance.",
        )
        embedding: float = Field(0.1, ge=0, le=1e6, description="Weight of 1 - cos of the embeddings.")

    name = "image-layers"
    score_unit: ClassVar[str] = "cosine"
    config: Config

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """See `Referee.load`.

        Raises:
            RefcoreError: the reference cannot be read, or the tower has no such module.
            CheckpointError: the checkpoint is missing, corrupt or of another kind.
        """
        reference = images.read(self.config.reference)[None]
        self.towers = OpenClipTowers(self.name, self.config.model, self.config.pretrained, device, dtype)
        self.input_size, self.device, self.dtype = self.towers.input_size, device, dtype
        self.fit = partial(centred, size=self.input_size)
        self.remarks = self.towers.remarks
        visual = self.towers.model.visual
        known = dict(visual.named_modules())
        for name in self.config.layers:
            if name not in known:
                blocks = [other for other in known if other.count(".") == 2 and "resblocks" in other]
                shown = blocks or [other for other in known if other and "." not in other]
                raise RefcoreError(
                    f'{self.name}: "{self.config.model}" has no layer "{name}"; expected one such as '
                    f"{', '.join(shown[:8])}"
                )
        wide = torch.promote_types(dtype, torch.float32)
        self.beside = reference.to(device, wide)
        with torch.no_grad():
            self._embedding = self.towers.image(centred(self.beside, self.input_size))
            """[1, D] of the whole reference."""

    def read(self, prompts: Sequence[str]) -> Conditioning:
        """No tensors: the prompt is ignored."""
        return Conditioning(tuple(prompts))

    def judge(self, views: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True) -> Tensor:
        """See `Referee.judge`: with the whole reference beside every view."""
        assert self.beside is not None
        whole = centred(self.beside, self.input_size).to(views.dtype).expand(len(views), -1, -1, -1)
        return self.judge_beside(views, whole, conditioning, prompt_index, wanted)

    def judge_beside(
        self, views: Tensor, beside: Tensor, conditioning: Conditioning, prompt_index: Tensor, wanted: bool = True
    ) -> Tensor:
        """See `Referee.judge_beside`. Not wanted: exp(-distance), which is bounded below."""
        activations, embedding = self._seen(views)
        with torch.no_grad():
            aims, aim = self._seen(beside)
        distance = self.config.embedding * (1 - (embedding * aim).sum(-1))
        for name, weight in self.config.layers.items():
            off = (activations[name] - aims[name]).to(distance.dtype)
            distance = distance + weight * off.square().flatten(1).mean(1)
        return distance if wanted else (-distance).exp()

    @torch.no_grad()
    def score(self, images: Tensor, conditioning: Conditioning) -> Tensor:
        """The cosine of the embeddings of each image and the reference, in [-1, 1]."""
        return (self.towers.image(images) * self._embedding).sum(-1)

    def _seen(self, views: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Activations of the layers, each [N, ...], and unit embeddings [N, D]."""
        kept: dict[str, Tensor] = {}
        visual = self.towers.model.visual

        def keep(name: str, output: Tensor) -> None:
            kept[name] = output if len(output) == len(views) else output.transpose(0, 1)  # tokens may come first

        hooks = [
            visual.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            for name in self.config.layers
        ]
        try:
            embedding = self.towers.image(views)
        finally:
            for hook in hooks:
                hook.remove()
        return kept, embedding
