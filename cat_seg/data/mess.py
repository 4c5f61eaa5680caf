"""MESS: 22 datasets from five domains, a group of benchmarks beside the six of the papers.

Blumenstiel et al., "What a MESS: Multi-Domain Evaluation of Zero-Shot Semantic Segmentation",
NeurIPS 2023. Names, folders, class lists and numbers of images are those of the package
mess-benchmark 0.2, whose scripts prepare the datasets; see docs/mess.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cat_seg.data.specs import DatasetSpec, Layout
from cat_seg.data.vocabularies import shipped_path

MESS = "MESS"  # the name of the group on the command line


@dataclass(frozen=True)
class MessDataset:
    """One of the 22 datasets.

    Attributes:
        label: its heading in MESS's tables.
        domain: the domain whose mean it counts for.
        parts: the registered datasets by heading. PAXRay-4 has four binary ones, since its organs
            overlap, and its figure is their mean; all others have one.
    """

    label: str
    domain: str
    parts: Mapping[str, DatasetSpec]


@dataclass(frozen=True)
class _Files:
    """A registered dataset of MESS, and where mess-benchmark's scripts leave it.

    Attributes:
        label: its heading.
        key, split: it is registered as KEY_sem_seg_SPLIT.
        folder: below the datasets root; `images` and `labels` are below it.
        expected: number of labeled images.
        images, labels: by default what the scripts write, images_detectron2/SPLIT and
            annotations_detectron2/SPLIT. Any other image folder is that of the download, which may
            hold more images than there are labels.
        script: mess.prepare_datasets.prepare_SCRIPT prepares it; by default the key.
        names: file of the class names; by default the key.
        whole: heading of the dataset that this is a part of; by default the label.
    """

    label: str
    key: str
    split: str
    folder: str
    expected: int
    images: str = ""
    labels: str = ""
    image_suffix: str = ".jpg"
    label_suffix: str = ".png"
    script: str = ""
    names: str = ""
    whole: str = ""

    def spec(self) -> DatasetSpec:
        """Return the dataset to register."""
        images = self.images or f"images_detectron2/{self.split}"
        labels = self.labels or f"annotations_detectron2/{self.split}"
        layout = Layout(
            f"{self.folder}/{images}",
            f"{self.folder}/{labels}",
            shared_images=not images.startswith("images_detectron2"),
        )
        return DatasetSpec(
            f"{self.key}_sem_seg_{self.split}",
            shipped_path(f"mess/classes/{self.names or self.key}"),
            (layout,),
            label_suffix=self.label_suffix,
            image_suffixes=frozenset({self.image_suffix}),
            expected=self.expected,
            made_by="run `python -m mess.prepare_datasets.prepare_"
            f"{self.script or self.key}` of the package mess-benchmark (see docs/mess.md)",
        )


def _infrared(label: str, key: str, folder: str, expected: int) -> _Files:
    """Return a dataset whose images have near infrared, red and green as their channels."""
    images, labels = "images_detectron2/test/irrg", "annotations_detectron2/test"
    return _Files(label, key, "test_irrg", folder, expected, images, labels, image_suffix=".png")


def _paxray(organ: str) -> _Files:
    return _Files(
        f"PAXRay-{organ.title()}",
        "paxray",
        f"test_{organ}",
        "paxray_dataset",
        expected=180,
        images="images_detectron2/test",
        labels=f"annotations_detectron2/test/{organ}",
        image_suffix=".png",
        names=f"paxray_{organ}",
        whole="PAXRay-4",
    )


_TABLE: Mapping[str, tuple[_Files, ...]] = {
    "General": (
        _Files("BDD100K", "bdd100k", "val", "bdd100k", 1000, images="images/10k/val"),
        _Files(
            "Dark Zurich",
            "dark_zurich",
            "val",
            "Dark_Zurich",
            expected=50,
            images="rgb_anon/val/night/GOPR0356",
            image_suffix="_rgb_anon.png",
            label_suffix="_gt_labelIds.png",
        ),
        _Files("MHP v1", "mhp_v1", "test", "LV-MHP-v1", 980),
        _Files(
            "FoodSeg103",
            "foodseg103",
            "test",
            "FoodSeg103",
            expected=2125,
            images="Images/img_dir/test",
            labels="Images/ann_dir/test",
            script="foodseg",
        ),
        _Files("ATLANTIS", "atlantis", "test", "atlantis", 1295),
        _Files("DRAM", "dram", "test", "DRAM_processed", 718),
    ),
    "Earth Monitoring": (
        _Files("iSAID", "isaid", "val", "isaid", 4055, image_suffix=".png"),
        _infrared("ISPRS Potsdam", "isprs_potsdam", "ISPRS_Potsdam", 504),
        _infrared("WorldFloods", "worldfloods", "WorldFloods", 160),
        _Files("FloodNet", "floodnet", "test", "FloodNet-Supervised_v1.0", 5571),
        _Files("UAVid", "uavid", "val", "uavid_v1.5", 840, image_suffix=".png"),
    ),
    "Medical Sciences": (
        _Files(
            "Kvasir-Instrument",
            "kvasir_instrument",
            "test",
            "kvasir-instrument",
            expected=118,
            image_suffix=".png",
        ),
        _Files("CHASE DB1", "chase_db1", "test", "CHASEDB1", 20),
        _Files(
            "CryoNuSeg",
            "cryonuseg",
            "test",
            "CryoNuSeg",
            expected=30,
            images="images_detectron2",
            labels="annotations_detectron2",
            image_suffix=".png",
        ),
        *(_paxray(organ) for organ in ("lungs", "bones", "mediastinum", "diaphragm")),
    ),
    "Engineering": (
        _Files(
            "Corrosion CS",
            "corrosion_cs",
            "test",
            "Corrosion Condition State Classification/original/Test",
            expected=44,
            images="images",
            labels="masks",
            image_suffix=".jpeg",
        ),
        _Files("DeepCrack", "deepcrack", "test", "DeepCrack", 237, images="test_img"),
        _Files(
            "PST900",
            "pst900",
            "test",
            "PST900_RGBT_Dataset/test",
            expected=288,
            images="thermal",
            labels="labels",
            image_suffix=".png",
        ),
        _Files(
            "ZeroWaste-f",
            "zerowaste",
            "test",
            "zerowaste-f/splits_final_deblurred/test",
            expected=929,
            images="data",
            labels="sem_seg",
            image_suffix=".PNG",
            label_suffix=".PNG",
        ),
    ),
    "Agriculture and Biology": (
        _Files("SUIM", "suim", "test", "SUIM", 110, images="TEST/images"),
        _Files("CUB-200", "cub_200", "test", "CUB_200_2011", 5794),
        _Files(
            "CWFID",
            "cwfid",
            "test",
            "cwfid",
            expected=21,
            images="images",
            image_suffix="_image.png",
            label_suffix="_annotation.png",
        ),
    ),
}


def _datasets() -> tuple[MessDataset, ...]:
    found = []
    for domain, files in _TABLE.items():
        parts: dict[str, dict[str, DatasetSpec]] = {}
        for one in files:
            parts.setdefault(one.whole or one.label, {})[one.label] = one.spec()
        found += [MessDataset(label, domain, specs) for label, specs in parts.items()]
    return tuple(found)


DOMAINS = tuple(_TABLE)
MESS_DATASETS = _datasets()
