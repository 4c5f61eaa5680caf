"""All configuration keys that the project adds to detectron2's, with their defaults."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_cat_seg_config(cfg: CfgNode) -> CfgNode:
    """Add the keys of CAT-Seg, H-CLIP and HPS-Seg to a detectron2 config, in place.

    Args:
        cfg: the result of `detectron2.config.get_cfg()`.

    Returns:
        The same config, so that `cfg = add_cat_seg_config(get_cfg())` works.
    """
    _add_model(cfg)
    _add_head(cfg)
    _add_hyperspherical(cfg)
    _add_hyperbolic(cfg)
    _add_adapters(cfg)
    _add_input_and_solver(cfg)
    _add_datasets(cfg)
    return cfg


def _add_model(cfg: CfgNode) -> None:
    cfg.MODEL.META_ARCHITECTURE = "CATSeg"
    # Per-channel RGB mean and standard deviation of CLIP's inputs, on the 0..255 scale.
    cfg.MODEL.CLIP_PIXEL_MEAN = [122.7709383, 116.7460125, 104.09373615]
    cfg.MODEL.CLIP_PIXEL_STD = [68.5005327, 66.6321579, 70.3231630]
    # If MODEL.WEIGHTS contains both, load the moving average (EMA) instead of the raw weights.
    cfg.MODEL.WEIGHTS_EMA = False
    # Prompt templates: "single", "imagenet_select" (8) or "imagenet" (80).
    cfg.MODEL.PROMPT_ENSEMBLE_TYPE = "single"
    # Custom templates that replace the ensemble's, such as ["a photo of a {}"].
    cfg.MODEL.PROMPT_TEMPLATES = []
    # Activation checkpointing in the aggregator, and in SigLIP's text tower: saves memory,
    # recomputes in the backward pass.
    cfg.MODEL.ACTIVATION_CHECKPOINTING = False
    # Compile the aggregator with torch.compile. Takes minutes at startup; no gain on a CPU.
    cfg.MODEL.COMPILE = False
    # On a GPU, use TF32 for float32 matrix products and convolutions. False uses full float32, as
    # a CPU always does.
    cfg.MODEL.TF32 = True
    # On a GPU, use deterministic algorithms only: a run repeats, and resumes, bit for bit.
    cfg.MODEL.DETERMINISTIC = False
    cfg.MODEL.MASK_FORMER = CfgNode()
    # Whole images are padded to a multiple of this size before they are resized for CLIP.
    cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY = 32


def _add_head(cfg: CfgNode) -> None:
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME = "CATSegHead"
    # Training class names: a JSON list, or a .txt file with one name per line. Relative paths also
    # resolve from the repository root.
    head.TRAIN_CLASS_JSON = "datasets/coco.json"
    # Test class names; "" uses each test dataset's own list.
    head.TEST_CLASS_JSON = ""
    # Vision-language model that encodes images and class names: its name in ENCODER_REGISTRY.
    head.ENCODER = "clip"
    # CLIP architecture: OpenAI's name ("ViT-B/16", "ViT-L/14@336px"), an open_clip model name such
    # as "EVA02-B-16" or "ViT-B-16-SigLIP2", or the path of an open_clip model config (.json).
    head.CLIP_PRETRAINED = "ViT-B/16"
    # Initial CLIP weights: "openai" or another of open_clip's tags for the model, such as "webli"
    # (downloaded once), a local file, or "random".
    head.CLIP_WEIGHTS = "openai"
    # Folder with SigLIP's tokenizer.json and tokenizer_config.json; "" downloads them once.
    head.CLIP_TOKENIZER = ""
    # Dense features of EVA02-CLIP: "value" (the last block's value path) or "csa" (correlative
    # self-attention, for DeCLIP's weights). Other models have "value" alone.
    head.CLIP_DENSE = "value"
    # How CLIP is fine-tuned: "frozen", "attention", "full", "oft_both", "oft", "oft_qv",
    # "hyperbolic", "hyperbolic_plus", "hyro" or "lora"; see docs/adapters.md.
    head.CLIP_FINETUNE = "attention"
    # Grid of CLIP patch tokens. CLIP's input size is this grid times the patch size.
    head.FEATURE_RESOLUTION = [24, 24]
    # Channels of the cost embedding.
    head.HIDDEN_DIMS = 128
    # Aggregation layers, each a spatial aggregation followed by a class aggregation.
    head.NUM_LAYERS = 2
    # Attention heads in the spatial and class aggregation.
    head.NUM_HEADS = 4
    # Side length, in tokens, of the square windows in the spatial aggregation.
    head.WINDOW_SIZES = 12
    # Average pooling (height, width) before the class aggregation.
    head.POOLING_SIZES = [2, 2]
    # Maximum number of classes passed to the aggregator; fewer are padded with a learned token.
    head.PAD_LEN = 256
    # Channels of the projected text and image guidance.
    head.TEXT_GUIDANCE_PROJ_DIM = 128
    head.APPEARANCE_GUIDANCE_PROJ_DIM = 128
    # Per decoder stage: output channels, channels of the upsampled CLIP guidance, and channels of
    # that guidance after projection.
    head.DECODER_DIMS = [64, 32]
    head.DECODER_GUIDANCE_DIMS = [256, 128]
    head.DECODER_GUIDANCE_PROJ_DIMS = [32, 16]
    # Initial bias of the last convolution; None keeps the layer's default initialization.
    head.OUTPUT_BIAS_INIT = None


def _add_hyperspherical(cfg: CfgNode) -> None:
    cfg.MODEL.HYPERSPHERICAL = CfgNode()
    node = cfg.MODEL.HYPERSPHERICAL
    # Hyperspherical prototype alignment: class prototypes on the unit sphere, geodesic loss.
    node.USE_HPA = True
    # Fraction of the old prototype kept at each update.
    node.HPA_MOMENTUM = 0.99
    # Temperature of the separation loss, before each class's learned factor is applied.
    node.HPA_TEMPERATURE = 0.07
    # Weight of the prototype separation loss (cross-entropy), relative to the alignment loss.
    node.HPA_SEPARATION_WEIGHT = 0.0
    # Adaptive feature rectification: uncertainty-mixed channel and spatial gates on the guidance.
    node.USE_AFR = True
    # Channel reduction ratio inside the gates.
    node.AFR_REDUCTION = 16
    # Initial value of all biases of the gates. At the published 2.0, AFR changes the features by
    # about 2 %; see docs/ablation.md.
    node.AFR_BIAS_INIT = 2.0
    # Weight of both auxiliary losses in the total loss.
    node.LOSS_WEIGHT = 0.1
    # Compute the cost volume from geodesic similarity (1 - angle / pi) instead of cosine.
    node.GEODESIC_CORRELATION = False


def _add_hyperbolic(cfg: CfgNode) -> None:
    cfg.MODEL.HYPERBOLIC = CfgNode()
    node = cfg.MODEL.HYPERBOLIC
    # Curvature of the Poincaré ball in which each tower's weights are fine-tuned.
    node.TEXT_CURVATURE = 1.0
    node.IMAGE_CURVATURE = 0.01
    # Side length, in channels, of the adapters' diagonal blocks.
    node.BLOCK_SIZE = 128
    # Training iterations between measurements of the hyperbolic radius; 0 disables them.
    node.RADIUS_PERIOD = 0


def _add_adapters(cfg: CfgNode) -> None:
    # Settings of the other adapters, one section each. Your own adapter may have a section here
    # too; see docs/extending.md.
    cfg.MODEL.ADAPTER = CfgNode(new_allowed=True)
    # HyperCLIP++: curvature of the Poincaré ball in which each tower's weights are fine-tuned.
    plus = cfg.MODEL.ADAPTER.HYPERBOLIC_PLUS = CfgNode()
    plus.TEXT_CURVATURE = 0.01
    plus.IMAGE_CURVATURE = 0.01
    # HyRo: curvature of each tower's ball, and the side lengths, in channels, of the diagonal
    # blocks that scale and rotate.
    hyro = cfg.MODEL.ADAPTER.HYRO = CfgNode()
    hyro.TEXT_CURVATURE = 1.0
    hyro.IMAGE_CURVATURE = 0.01
    hyro.BLOCK_SIZE = 128
    hyro.ROTATION_SIZE = 256
    # LoRA: the added matrices have rank RANK and are multiplied by ALPHA / RANK.
    lora = cfg.MODEL.ADAPTER.LORA = CfgNode()
    lora.RANK = 8
    lora.ALPHA = 8.0
    # Probability with which an input channel is dropped in a training step, for all tokens alike.
    lora.DROPOUT = 0.0
    # Adapted projections of each tower: "q", "k", "v", "out"; [] leaves the tower as it is.
    lora.TEXT_PROJECTIONS = ["q", "v"]
    lora.IMAGE_PROJECTIONS = ["q", "v"]


def _add_input_and_solver(cfg: CfgNode) -> None:
    # Channel order of images; CLIP takes RGB.
    cfg.INPUT.FORMAT = "RGB"
    # Training mapper: "mask_former_semantic", or "semantic" for short.
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    # Read images and label maps as stored, without applying the EXIF orientation.
    cfg.INPUT.IGNORE_EXIF_ORIENTATION = False
    # SSD's color augmentation in training.
    cfg.INPUT.COLOR_AUG_SSD = False
    # Fraction of a training crop that one class may cover before another crop is drawn.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # Training crops are padded to this size (pixels).
    cfg.INPUT.SIZE_DIVISIBILITY = -1
    # "ADAMW", or "SGD" with SOLVER.MOMENTUM.
    cfg.SOLVER.OPTIMIZER = "ADAMW"
    # Weight decay of nn.Embedding.
    cfg.SOLVER.WEIGHT_DECAY_EMBED = 0.0
    # For LR_SCHEDULER_NAME "WarmupPolyLR": the rate decays as (1 - iteration / MAX_ITER) to this
    # power, but not below POLY_LR_CONSTANT_ENDING times BASE_LR.
    cfg.SOLVER.POLY_LR_POWER = 0.9
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.0
    # Learning rate of CLIP's parameters, relative to BASE_LR.
    cfg.SOLVER.CLIP_MULTIPLIER = 0.01
    # Gradient accumulation: each process splits its share of SOLVER.IMS_PER_BATCH into this many
    # micro-batches and averages their gradients. Memory is that of one micro-batch. Each
    # micro-batch is padded on its own, as if it were on another process.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Training iterations between measurements of gradients by loss, AFR's gates and HPA's
    # prototypes; 0 disables them. See docs/analysis.md.
    cfg.SOLVER.DIAGNOSTICS_PERIOD = 0
    # Data type of mixed precision (SOLVER.AMP.ENABLED): "float16", "bfloat16", or "auto" for
    # float16 on a GPU and bfloat16 on a CPU.
    cfg.SOLVER.AMP.DTYPE = "auto"
    # Batch size per process in evaluation.
    cfg.TEST.IMS_PER_BATCH = 1
    # Allow evaluation without MODEL.WEIGHTS: CLIP with an untrained head.
    cfg.TEST.ALLOW_UNTRAINED = False
    # Write the predictions of an evaluation, run-length encoded, to sem_seg_predictions.json.
    cfg.TEST.SAVE_PREDICTIONS = False
    # Mixed precision in evaluation and prediction: lossy. DTYPE as in SOLVER.AMP.
    cfg.TEST.AMP = CfgNode()
    cfg.TEST.AMP.ENABLED = False
    cfg.TEST.AMP.DTYPE = "auto"
    # Classes passed to the aggregator in evaluation and prediction, those most similar to the image
    # (or window): lossy, faster the fewer they are. 0 passes up to PAD_LEN classes, as in training.
    cfg.TEST.MOST_CLASSES = 0
    # Evaluate with 384-pixel sliding windows over a 640x640 image, plus the whole image.
    cfg.TEST.SLIDING_WINDOW = False


def _add_datasets(cfg: CfgNode) -> None:
    # Your own datasets, by name: IMAGES and LABELS (folders), CLASSES (class list), and optional
    # keys such as LABEL_SUFFIX, IGNORE_LABEL and BACKGROUND_FROM; see docs/custom_datasets.md.
    cfg.DATASETS.CUSTOM = CfgNode(new_allowed=True)
