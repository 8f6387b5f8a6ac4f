"""The 80 classes of COCO, in the order that detectors use, and the ImageNet classes that are kinds of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# fmt: off
COCO: Final = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)
# fmt: on
SYNONYMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "aeroplane": "airplane",
        "plane": "airplane",
        "bike": "bicycle",
        "motorbike": "motorcycle",
        "sofa": "couch",
        "television": "tv",
        "tv monitor": "tv",
        "tvmonitor": "tv",
        "mobile phone": "cell phone",
        "remote control": "remote",
        "fridge": "refrigerator",
        "doughnut": "donut",
        "hair dryer": "hair drier",
        "pottedplant": "potted plant",
        "diningtable": "dining table",
        "woman": "person",
        "man": "person",
        "kitten": "cat",
        "puppy": "dog",
    }
)
"""Other spellings of COCO's names."""
_KINDS: Final[Mapping[str, tuple[int | range, ...]]] = {
    "bicycle": (444, 671),
    "car": (436, 468, 511, 609, 627, 656, 661, 751, 817),
    "motorcycle": (665, 670),
    "airplane": (404, 895),
    "bus": (654, 779, 874),
    "train": (466, 547, 705, 820),
    "truck": (555, 569, 675, 717, 864, 867),
    "boat": (472, 484, 554, 576, 625, 628, 780, 814, 871, 914),
    "traffic light": (920,),
    "parking meter": (704,),
    "bench": (703,),
    "bird": (range(7, 25), range(80, 101), range(127, 147)),
    "cat": (range(281, 286),),
    "dog": (range(151, 269),),
    "horse": (339,),
    "sheep": (348, 349),
    "cow": (345,),
    "elephant": (101, 385, 386),
    "bear": (range(294, 298),),
    "zebra": (340,),
    "backpack": (414,),
    "umbrella": (879,),
    "handbag": (748,),
    "tie": (906,),
    "skis": (795,),
    "sports ball": (429, 430, 574, 722, 768, 805, 852, 890),
    "tennis racket": (752,),
    "bottle": (440, 737, 898, 907),
    "cup": (504, 968),
    "spoon": (910,),
    "bowl": (659, 809),
    "banana": (954,),
    "apple": (948,),
    "sandwich": (933,),
    "orange": (950,),
    "broccoli": (937,),
    "hot dog": (934,),
    "pizza": (963,),
    "chair": (423, 559, 765),
    "couch": (831,),
    "bed": (564,),
    "dining table": (532,),
    "toilet": (861,),
    "tv": (851,),
    "laptop": (620, 681),
    "mouse": (673,),
    "remote": (761,),
    "keyboard": (508,),
    "cell phone": (487,),
    "microwave": (651,),
    "toaster": (859,),
    "sink": (896,),
    "refrigerator": (760,),
    "book": (917,),
    "clock": (409, 530, 892),
    "vase": (883,),
    "teddy bear": (850,),
    "hair drier": (589,),
}
"""COCO's class -> indices of the ImageNet classes that a COCO annotator would draw its box around. Doubtful ones (a
typewriter keyboard, a wolf, a teapot) are left out."""
OF_IMAGENET: Final[Mapping[int, int]] = MappingProxyType(
    {
        index: COCO.index(name)
        for name, several in _KINDS.items()
        for one in several
        for index in (one if isinstance(one, range) else (one,))
    }
)
"""Index of an ImageNet class -> index of the COCO class that it is a kind of; the others are no kind of any."""
