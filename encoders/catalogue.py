"""The names of torchvision's networks that are encoders, known without importing torchvision."""

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
RESNETS += ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2")
REGNETS = "400mf 800mf 1_6gf 3_2gf 8gf 16gf 32gf"
FAMILIES = {  # start of the names: published name, centre of the deepest map's first cell in pixels, ends of the names
    "convnext_": ("ConvNeXt-", 15, "tiny small base large"),
    "densenet": ("DenseNet-", 14, "121 161 169 201"),
    "efficientnet_v2_": ("EfficientNetV2-", 0, "s m l"),
    "efficientnet_": ("EfficientNet-", 0, "b0 b1 b2 b3 b4 b5 b6 b7"),
    "mnasnet": ("MNASNet-", 0, "0_5 0_75 1_0 1_3"),
    "mobilenet_v3_": ("MobileNetV3-", 0, "small large"),
    "mobilenet_": ("MobileNet", 0, "v2"),
    "regnet_x_": ("RegNetX-", 0, REGNETS),
    "regnet_y_": ("RegNetY-", 0, f"{REGNETS} 128gf"),
    "shufflenet_v2_x": ("ShuffleNetV2-x", 0, "0_5 1_0 1_5 2_0"),
    "swin_v2_": ("SwinV2-", 15, "t s b"),
    "swin_": ("Swin-", 15, "t s b"),
    "vgg": ("VGG-", 15, "11 11_bn 13 13_bn 16 16_bn 19 19_bn"),
}
TRUNKS = tuple(sorted(start + end for start, (_, _, ends) in FAMILIES.items() for end in ends.split()))
