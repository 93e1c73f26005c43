"""Train without and with differential privacy, on full images and on codes; measure accuracy and fairness of each.

Source: Tayebi Arasteh et al., Private, fair and accurate, arXiv:2302.01622.
"""

from monai_deepfixcx.pipeline.private_sweep.figures import write_figures
from monai_deepfixcx.pipeline.private_sweep.networks import dp_head, publicly_normalized_mlp
from monai_deepfixcx.pipeline.private_sweep.sweep import film_parts, load_parts, run_sweep
from monai_deepfixcx.pipeline.private_sweep.table import sweep_table
from monai_deepfixcx.pipeline.private_sweep.training import Contender, Recipe, train_contender

__all__ = [
    "Contender",
    "Recipe",
    "dp_head",
    "film_parts",
    "load_parts",
    "publicly_normalized_mlp",
    "run_sweep",
    "sweep_table",
    "train_contender",
    "write_figures",
]
