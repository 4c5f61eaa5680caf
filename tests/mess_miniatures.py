"""Datasets of MESS as mess-benchmark leaves them, with a few small images each."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

MADE = "images_detectron2", "annotations_detectron2"
COUNT = 2
HEIGHT, WIDTH = 24, 30
IGNORED = 255


class Place(NamedTuple):
    """Where a dataset's files are below the root, and what its labels hold.

    image, label: endings of the file names behind what both have in common.
    """

    images: str
    labels: str
    classes: int
    image: str = ".png"
    label: str = ".png"


def made(folder: str, split: str, classes: int, image: str = ".jpg") -> Place:
    """The folders that most of the scripts write."""
    images, labels = (f"{folder}/{name}/{split}" for name in MADE)
    return Place(images, labels, classes, image)


CORROSION = "Corrosion Condition State Classification/original/Test"
ZEROWASTE = "zerowaste-f/splits_final_deblurred/test"
PLACES = {
    "bdd100k_sem_seg_val": Place(
        "bdd100k/images/10k/val", "bdd100k/annotations_detectron2/val", 19, ".jpg"
    ),
    "dark_zurich_sem_seg_val": Place(
        "Dark_Zurich/rgb_anon/val/night/GOPR0356",
        "Dark_Zurich/annotations_detectron2/val",
        *(20, "_rgb_anon.png", "_gt_labelIds.png"),
    ),
    "mhp_v1_sem_seg_test": made("LV-MHP-v1", "test", 19),
    "foodseg103_sem_seg_test": Place(
        "FoodSeg103/Images/img_dir/test", "FoodSeg103/Images/ann_dir/test", 104, ".jpg"
    ),
    "atlantis_sem_seg_test": made("atlantis", "test", 56),
    "dram_sem_seg_test": made("DRAM_processed", "test", 12),
    "isaid_sem_seg_val": made("isaid", "val", 16, ".png"),
    "isprs_potsdam_sem_seg_test_irrg": Place(
        "ISPRS_Potsdam/images_detectron2/test/irrg", "ISPRS_Potsdam/annotations_detectron2/test", 6
    ),
    "worldfloods_sem_seg_test_irrg": Place(
        "WorldFloods/images_detectron2/test/irrg", "WorldFloods/annotations_detectron2/test", 3
    ),
    "floodnet_sem_seg_test": made("FloodNet-Supervised_v1.0", "test", 10),
    "uavid_sem_seg_val": made("uavid_v1.5", "val", 8, ".png"),
    "kvasir_instrument_sem_seg_test": made("kvasir-instrument", "test", 2, ".png"),
    "chase_db1_sem_seg_test": made("CHASEDB1", "test", 2),
    "cryonuseg_sem_seg_test": Place(
        "CryoNuSeg/images_detectron2", "CryoNuSeg/annotations_detectron2", 2
    ),
    **{
        f"paxray_sem_seg_test_{organ}": Place(
            "paxray_dataset/images_detectron2/test",
            f"paxray_dataset/annotations_detectron2/test/{organ}",
            2,
        )
        for organ in ("lungs", "bones", "mediastinum", "diaphragm")
    },
    "corrosion_cs_sem_seg_test": Place(f"{CORROSION}/images", f"{CORROSION}/masks", 4, ".jpeg"),
    "deepcrack_sem_seg_test": Place(
        "DeepCrack/test_img", "DeepCrack/annotations_detectron2/test", 2, ".jpg"
    ),
    "pst900_sem_seg_test": Place(
        "PST900_RGBT_Dataset/test/thermal", "PST900_RGBT_Dataset/test/labels", 5
    ),
    "zerowaste_sem_seg_test": Place(f"{ZEROWASTE}/data", f"{ZEROWASTE}/sem_seg", 5, ".PNG", ".PNG"),
    "suim_sem_seg_test": Place("SUIM/TEST/images", "SUIM/annotations_detectron2/test", 8, ".jpg"),
    "cub_200_sem_seg_test": made("CUB_200_2011", "test", 201),
    "cwfid_sem_seg_test": Place(
        "cwfid/images", "cwfid/annotations_detectron2/test", 3, "_image.png", "_annotation.png"
    ),
}


def write(root: Path, name: str) -> list[np.ndarray]:
    """Write a dataset; returns its label maps (H, W), each with all classes and ignored pixels."""
    place = PLACES[name]
    generator = np.random.default_rng(len(name))
    for folder in (place.images, place.labels):
        (root / folder).mkdir(parents=True, exist_ok=True)
    labels = []
    for index in range(COUNT):
        # PST900's images are thermal: a single channel.
        size = (HEIGHT, WIDTH) if name.startswith("pst900") else (HEIGHT, WIDTH, 3)
        image = np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(image).save(root / place.images / f"00{index}{place.image}")
        label = generator.integers(0, place.classes, (HEIGHT, WIDTH), dtype=np.uint8)
        label.flat[: place.classes] = range(place.classes)
        label[-1] = IGNORED
        Image.fromarray(label).save(root / place.labels / f"00{index}{place.label}")
        labels.append(label)
    return labels
