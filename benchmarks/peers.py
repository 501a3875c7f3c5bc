"""Common alternatives to this project, each as in its own documentation.

Every contender is a function (samples, size, batch_size, n_steps, device) that trains for `n_steps` steps and returns
the end time of each, in seconds. `samples` are (image path, mask path, label). The imports are inside the functions, so
that a peer that is not installed can be reported as missing.
"""

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models as torchvision_models
from torchvision.transforms import v2

from data import MEAN, STD

N_WORKERS = torch.get_num_threads()


class PlainDataset(Dataset):
    """Decodes, resizes and normalises an image on every access."""

    def __init__(self, samples, size, with_mask):
        self.samples, self.with_mask, self.size = samples, with_mask, size
        resize = [v2.Resize((size, size)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        self.transform = v2.Compose([*resize, v2.Normalize(MEAN, STD)])

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        image_path, mask_path, label = self.samples[index]
        image = self.transform(Image.open(image_path).convert("RGB"))
        if not self.with_mask:
            return image, label
        mask = Image.open(mask_path).convert("L").resize((self.size, self.size), Image.Resampling.NEAREST)
        return image, label, torch.from_numpy(np.array(mask) > 127).float()[None]


def repeated(samples, n):
    """`n` samples, repeating them as needed."""
    return (samples * (1 + n // len(samples)))[:n]


def loader(samples, size, batch_size, n_steps, with_mask):
    samples = repeated(samples, n_steps * batch_size)
    return DataLoader(PlainDataset(samples, size, with_mask), batch_size, shuffle=True, num_workers=N_WORKERS)


def plain_loop(model, batches, loss_of, device):
    """The loop of every tutorial: float32, contiguous memory, Adam."""
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    ends, running = [], 0.0
    for batch in batches:
        batch = [value.to(device) for value in batch]
        optimizer.zero_grad()
        loss = loss_of(model, *batch)
        loss.backward()
        optimizer.step()
        running += loss.item()
        ends.append(time.perf_counter())
    return ends


def label_loss(model, image, label, *_):
    return F.cross_entropy(model(image), label)


def mask_loss(model, image, _label, mask):
    return F.binary_cross_entropy_with_logits(model(image), mask)


def both_losses(model, image, label, mask):
    mask_logits, label_logits = model(image)
    return F.binary_cross_entropy_with_logits(mask_logits, mask) + F.cross_entropy(label_logits, label)


def plain_classification(samples, size, batch_size, n_steps, device):
    batches = loader(samples, size, batch_size, n_steps, with_mask=False)
    return plain_loop(torchvision_models.resnet18(num_classes=7), batches, label_loss, device)


def smp_segmentation(samples, size, batch_size, n_steps, device):
    import segmentation_models_pytorch as smp

    model = smp.Unet("resnet18", encoder_weights=None)
    return plain_loop(model, loader(samples, size, batch_size, n_steps, with_mask=True), mask_loss, device)


def smp_multitask(samples, size, batch_size, n_steps, device):
    import segmentation_models_pytorch as smp

    model = smp.Unet("resnet18", encoder_weights=None, aux_params={"classes": 7})
    return plain_loop(model, loader(samples, size, batch_size, n_steps, with_mask=True), both_losses, device)


def monai_batches(samples, size, batch_size, n_steps, with_mask):
    """MONAI's CacheDataset: decoded, resized and scaled once, then kept in memory."""
    from monai.data import CacheDataset
    from monai.data import DataLoader as MonaiLoader
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized, ScaleIntensityRanged
    from monai.utils import set_determinism

    set_determinism(0)
    keys = ["image", "mask"] if with_mask else ["image"]
    samples = repeated(samples, n_steps * batch_size)
    items = [{"image": str(i), "mask": str(m), "label": label} for i, m, label in samples]
    modes = ["bilinear", "nearest"][: len(keys)]
    steps = [
        LoadImaged(keys, reader="PILReader"),
        EnsureChannelFirstd(keys),
        Resized(keys, (size, size), mode=modes),
        ScaleIntensityRanged(keys, 0, 255, 0, 1),
    ]
    cached = CacheDataset(items, Compose(steps), progress=False, num_workers=N_WORKERS)
    for batch in MonaiLoader(cached, batch_size=batch_size, shuffle=True):
        image = batch["image"][:, :3].as_tensor()
        yield (image, batch["label"], batch["mask"][:, :1].as_tensor()) if with_mask else (image, batch["label"])


def monai_classification(samples, size, batch_size, n_steps, device):
    from monai.networks.nets import resnet18

    model = resnet18(spatial_dims=2, n_input_channels=3, num_classes=7)
    return plain_loop(model, monai_batches(samples, size, batch_size, n_steps, with_mask=False), label_loss, device)


def monai_segmentation(samples, size, batch_size, n_steps, device):
    from monai.networks.nets import FlexibleUNet

    model = FlexibleUNet(in_channels=3, out_channels=1, backbone="resnet18", pretrained=False)
    return plain_loop(model, monai_batches(samples, size, batch_size, n_steps, with_mask=True), mask_loss, device)


def lightning_loop(network, loss_of, batches, n_steps, device):
    """Lightning's Trainer with its bf16 mixed precision."""
    import lightning

    ends = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def training_step(self, batch, _index):
            return loss_of(self.network, *batch)

        def on_train_batch_end(self, *_):
            ends.append(time.perf_counter())

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-4)

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    trainer = lightning.Trainer(max_steps=n_steps, accelerator=accelerator, devices=1, precision="bf16-mixed", **quiet)
    trainer.fit(Module(), batches)
    return ends


def lightning_classification(samples, size, batch_size, n_steps, device):
    batches = loader(samples, size, batch_size, n_steps, with_mask=False)
    return lightning_loop(torchvision_models.resnet18(num_classes=7), label_loss, batches, n_steps, device)


def lightning_segmentation(samples, size, batch_size, n_steps, device):
    import segmentation_models_pytorch as smp

    batches = loader(samples, size, batch_size, n_steps, with_mask=True)
    return lightning_loop(smp.Unet("resnet18", encoder_weights=None), mask_loss, batches, n_steps, device)


def fastai_loop(learner):
    from fastai.callback.core import Callback

    ends = []

    class Clock(Callback):
        def after_batch(self):
            if self.training:
                ends.append(time.perf_counter())

    with learner.no_bar(), learner.no_logging():
        learner.fit(1, cbs=Clock())
    return ends


def fastai_classification(samples, size, batch_size, n_steps, device):
    from fastai.vision.all import ImageDataLoaders, Normalize, Resize, ResizeMethod, resnet18, vision_learner

    samples = repeated(samples, n_steps * batch_size)
    labels = {str(image): label for image, _, label in samples}
    paths = [Path(image) for image, _, _ in samples]
    loaders = ImageDataLoaders.from_path_func(
        ".", paths, lambda path: labels[str(path)], valid_pct=0.001, bs=batch_size, num_workers=N_WORKERS,
        item_tfms=Resize(size, ResizeMethod.Squish), batch_tfms=Normalize.from_stats(MEAN, STD), device=device,
    )  # fmt: skip
    learner = vision_learner(loaders, resnet18, pretrained=False, n_out=7, loss_func=nn.CrossEntropyLoss(), metrics=[])
    return fastai_loop(learner)


def fastai_segmentation(samples, size, batch_size, n_steps, device):
    from fastai.vision.all import (
        Normalize,
        PILMask,
        Resize,
        ResizeMethod,
        SegmentationDataLoaders,
        resnet18,
        unet_learner,
    )

    samples = repeated(samples, n_steps * batch_size)
    masks = {str(image): mask for image, mask, _ in samples}

    def mask_of(name):
        return PILMask.create((np.array(Image.open(masks[str(name)]).convert("L")) > 127).astype(np.uint8))

    loaders = SegmentationDataLoaders.from_label_func(
        ".", [str(image) for image, _, _ in samples], mask_of, codes=["skin", "lesion"], valid_pct=0.001,
        bs=batch_size, num_workers=N_WORKERS, item_tfms=Resize(size, ResizeMethod.Squish),
        batch_tfms=Normalize.from_stats(MEAN, STD), device=device,
    )  # fmt: skip
    return fastai_loop(unet_learner(loaders, resnet18, pretrained=False, n_out=2, metrics=[]))


PEERS = {
    "classification": {
        "plain recipe": plain_classification,
        "fastai vision_learner": fastai_classification,
        "Lightning, bf16": lightning_classification,
        "MONAI resnet18, CacheDataset": monai_classification,
    },
    "segmentation": {
        "plain recipe, smp Unet": smp_segmentation,
        "fastai unet_learner": fastai_segmentation,
        "Lightning, bf16, smp Unet": lightning_segmentation,
        "MONAI FlexibleUNet, CacheDataset": monai_segmentation,
    },
    "multitask": {"plain recipe, smp Unet with aux_params": smp_multitask},
}
