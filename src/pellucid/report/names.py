"""How methods, metrics and numbers are written in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

_METHODS = {
    "grad-cam-plus-plus": "Grad-CAM++",
    "xgrad-cam": "XGrad-CAM",
    "layer-cam": "LayerCAM",
    "eigen-grad-cam": "EigenGradCAM",
    "ablation-cam": "AblationCAM",
    "grad-cam": "Grad-CAM",
    "hires-cam": "HiResCAM",
    "eigen-cam": "Eigen-CAM",
    "shapley-cam": "Shapley-CAM",
    "relevance-cam": "Relevance-CAM",
    "finer-cam": "Finer-CAM",
    "score-cam": "Score-CAM",
    "refine-cam": "RefineCAM",
    "saliency": "Saliency",
    "input-x-gradient": "Input × gradient",
    "smooth-grad": "SmoothGrad",
    "smooth-grad-squared": "SmoothGrad²",
    "var-grad": "VarGrad",
    "integrated-gradients": "Integrated gradients",
    "expected-gradients": "Expected gradients",
    "fullgrad": "FullGrad",
    "occlusion": "Occlusion",
    "feature-ablation": "Feature ablation",
    "rise": "RISE",
    "lime": "LIME",
    "kernel-shap": "KernelSHAP",
    "sobol": "Sobol indices",
    "hsic": "HSIC",
    "extremal-masks": "Extremal masks",
    "guided-backprop": "Guided backpropagation",
    "guided-grad-cam": "Guided Grad-CAM",
    "deconvolution": "Deconvolution",
    "deep-lift": "DeepLIFT",
    "lrp": "LRP",
    "attention-rollout": "Attention rollout",
    "le-grad": "LeGrad",
    "random": "Random map",
    "center-gaussian": "Centre Gaussian",
    "sobel": "Sobel edges",
    "image": "Image itself",
}
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "auroc": "AUROC",
    "kappa": "Cohen’s κ",
    "mcc": "MCC",
    "brier": "Brier score",
    "f1": "F1",
    "ppv": "PPV",
    "npv": "NPV",
    "road": "Confidence increase (ROAD)",
    "road-morf": "MoRF",
    "road-lerf": "LeRF",
    "irof": "IROF",
    "mu-fidelity": "μ-fidelity",
    "arcc": "ARCC",
    "adcc": "ADCC",
    "sensitivity-n": "Sensitivity-n",
    "ssim": "SSIM",
    "energy-pointing": "Relevance mass",
    "iou": "IoU",
    "auprc": "AUPRC",
    "froc": "FROC",
    "local-lipschitz": "Local Lipschitz",
}
NONE = "–"


def method_title(label: str) -> str:
    """A method's name as its paper writes it, with its options if any.

    >>> method_title("layer-cam"), method_title("grad-cam[positive=False]"), method_title("mine")
    ('LayerCAM', 'Grad-CAM [positive=False]', 'mine')
    """
    name, bracket, options = label.partition("[")
    return _METHODS.get(name, name) + (f" [{options}" if bracket else "")


def metric_title(label: str) -> str:
    """A metric's name in words, with its options if any.

    >>> metric_title("road"), metric_title("pointing-game"), metric_title("deletion[fill=blur]")
    ('Confidence increase (ROAD)', 'Pointing game', 'Deletion [fill=blur]')
    """
    name, bracket, options = label.partition("[")
    words = name.replace("-", " ")
    return METRIC_TITLES.get(name, words[:1].upper() + words[1:]) + (f" [{options}" if bracket else "")


def measure_title(name: str) -> str:
    """A classifier measure's name in words; averages over several labels say which.

    >>> measure_title("balanced_accuracy"), measure_title("mcc"), measure_title("micro_ppv")
    ('Balanced accuracy', 'MCC', 'PPV, micro')
    """
    average, _, rest = name.partition("_")
    if average in ("macro", "micro") and name not in METRIC_TITLES:
        return f"{measure_title(rest)}, {average}"
    return metric_title(name.replace("_", "-") if name not in METRIC_TITLES else name)


def number(value: float | None, digits: int = 3) -> str:
    """A number with a true minus sign; a missing one is a dash.

    >>> number(-0.12345), number(float("nan")), number(-0.0001)
    ('−0.123', '–', '0.000')
    """
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as per cent, with a space that doesn't break.

    >>> percent(0.8631)
    '86.3\\xa0%'
    """
    return NONE if value is None or not math.isfinite(value) else f"{number(100 * value, digits)}\u00a0%"


def seconds(value: float | None) -> str:
    """A time to three figures, in ms below a second.

    >>> seconds(0.0123), seconds(2.5), seconds(125)
    ('12.3\\xa0ms', '2.5\\xa0s', '125\\xa0s')
    """
    if value is None or not math.isfinite(value):
        return NONE
    if value < 1:
        return f"{1000 * value:.3g}\u00a0ms"
    return f"{value:.3g}\u00a0s" if value < 1000 else f"{value:.0f}\u00a0s"


def p_value(value: float | None) -> str:
    """A p as it is printed, with a floor and a ceiling.

    >>> p_value(0.00001), p_value(0.0213), p_value(1.0), p_value(float("nan"))
    ('< 0.001', '0.021', '> 0.99', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    if value > 0.99:
        return "> 0.99"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def size_words(size: int | Sequence[int]) -> str:
    """The side of a square picture, or the lengths of a volume.

    >>> size_words(224), size_words([32, 64, 64])
    ('224 × 224', '32 × 64 × 64')
    """
    return " × ".join(map(str, (size, size) if isinstance(size, int) else size))


def listed(words: Sequence[str]) -> str:
    """Words in a row with "and" before the last.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def counted(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun.

    >>> counted(1, "image"), counted(2, "class", "classes")
    ('1 image', '2 classes')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}".replace(",", "\u202f")
