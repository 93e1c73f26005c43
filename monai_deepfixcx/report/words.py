"""The plain words of a privacy card: what attacks do, what scores mean, and what was not tried."""

from __future__ import annotations

# What an attack does, for a reader who has never heard of it.
ATTACKS: dict[str, str] = {
    "MeanImage": "Ignores the code and guesses the average image of other patients: the best guess without the code.",
    "NearestNeighbor": "Answers with the image of the other patient whose code is most alike.",
    "DecoderAttack": "Uses the codec's own decoder, as published.",
    "LowPassThumbnail": "Reads the coarsest part of the code as a thumbnail and enlarges it.",
    "LinearInverse": "Undoes by algebra what is linear in the codec; the rest is the average image of other patients.",
    "LinearMMSE": "Learns from other patients' images which image most likely belongs to a code (linear regression).",
    "MAPInversion": "Searches, image by image, for the smooth picture whose code fits best.",
    "LearnedInversion": "Trains a neural network on other patients to correct the best simple estimate of the image.",
    "MeanFill": "Fills every pixel that was not kept with the average of other patients.",
    "InPainting": "Trains a neural network on other patients to paint in the pixels that were not kept.",
    "EuclideanLinkage": "Takes two codes for the same patient if they are numerically close.",
    "FeatureLinkage": "Compares codes after learning from other patients which of their differences are mere noise.",
    "LearnedLinkage": "Trains a neural network on privatized images of other patients to tell who is who.",
    "RMIA": "Compares a trained model's answers with those of models that never saw the patient.",
}

# What stands behind an attack's name -> what it changes.
VARIANTS: dict[str, str] = {
    "code to raw": "The attacker also holds undefended images of the victims from another visit, to compare with.",
    "after reconstruction": "Each code is first turned into an image by a reconstruction attack.",
}

# A score -> what it is, and whether a reader knows it best as a percentage.
SCORES: dict[str, tuple[str, bool]] = {
    "explained_variance": ("Recovered of what sets the image apart from the average image", True),
    "ssim": ("Structural similarity (SSIM, 1 = identical)", False),
    "auc": ("Same patient ranked above different patients (AUC)", True),
    "precision_at_1": ("Right patient found at the first try", True),
}

# Of each goal, the score that orders attacks, and the one shown beside it.
SCORES_OF_GOAL: dict[str, tuple[str, str | None]] = {
    "reconstruct": ("explained_variance", "ssim"),
    "link": ("auc", "precision_at_1"),
    "infer membership": ("auc", None),
}

GOALS: dict[str, tuple[str, str]] = {
    "reconstruct": (
        "Getting the image back",
        "The attacker holds a code and tries to draw the image it was made of. 0 % means no better than the average "
        "image of other patients; 100 % means the image itself. Below 0 % the drawing is further from the image than "
        "the average is, though it may still show detail.",
    ),
    "link": (
        "Recognising the patient",
        "The attacker holds a code and asks which other code, or which other image, shows the same patient. Blind "
        "guessing ranks the same patient higher in 50 % of comparisons.",
    ),
    "infer membership": (
        "Telling who was trained on",
        "The attacker asks a trained model whether a patient was among those it learnt from. Blind guessing is right "
        "in 50 % of comparisons.",
    ),
}

# Known attacks that this package does not have. A card always says so.
NOT_IN_THE_PACKAGE: tuple[tuple[str, str], ...] = (
    (
        "Inversion with a large generative model",
        "A diffusion model trained on hundreds of thousands of radiographs can draw plausible detail that a code does "
        "not hold. No such model is part of this package. Expect a stronger attacker to get back more than shown here.",
    ),
    (
        "Re-identification with a foundation model",
        "Networks trained on very many pairs of radiographs recognise patients far better than one trained on the few "
        "patients available here.",
    ),
    (
        "Attacks on several releases at once",
        "Codes of one patient made with different settings, or at different times, can be combined. Each was attacked "
        "alone.",
    ),
    (
        "Inference of attributes",
        "Sex, age, disease, implants or the scanner may show in a code. Whatever can be learnt from codes for a good "
        "purpose can be learnt for another one; it was not measured as an attack.",
    ),
    (
        "Linking through other records",
        "File names, dates, image height and width, the order of the files, rare diagnoses or labels that travel with "
        "the codes can identify a patient without any look at the code.",
    ),
    (
        "Text burned into the pixels",
        "A codec treats a name written in the image like any other edge. Reading it back was not tried separately.",
    ),
    (
        "Side channels and insiders",
        "Computing time, file sizes, access logs, or a person with the site key or with the original images.",
    ),
    (
        "Attacks on models trained on the codes",
        "Extraction of training data from a shared model. Only membership is offered here, and only where the table "
        "above lists it.",
    ),
)

LIMITS: tuple[str, ...] = (
    "These figures are what the attacks named here reached on these images. A better attack, more images of other "
    "patients or more computing time can only raise them.",
    "They are averages over patients. A patient with an unusual image can be easier to recognise than the average.",
    "They say nothing about other images, other scanners or other settings than those listed.",
    "Whether sharing is lawful is not a question that measurements answer.",
)

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("Code", "The list of numbers that an image is compressed to, and that would be shared in place of the image."),
    ("Privatize", "To turn an image into its code, or into the coarse picture that the code still shows."),
    ("Undefended", "The same attack on the images themselves, not compressed: what the attacker gets without codes."),
    ("Best guess without the code", "What an attacker scores who has never seen the code. Any less is no achievement."),
    (
        "Auxiliary patients",
        "Other patients whose images the attacker already has, for example from a public collection, and learns from.",
    ),
    ("Victims", "The patients whose codes are attacked. None of them is an auxiliary patient; none is pictured here."),
    (
        "Interval",
        "The figures in brackets. Had other patients of the same kind been drawn, the result would lie in such a range "
        "in 95 of 100 draws, roughly. It covers the choice of patients only, not better attacks.",
    ),
    ("Advantage", "A score rescaled so that 0 is the best guess without the code and 1 is the undefended image."),
    (
        "AUC, AUROC",
        "Of two cases, one positive and one negative, how often the positive one is scored higher. 50 % (.5) is "
        "guessing, 100 % (1) is perfect.",
    ),
    ("Structural similarity (SSIM)", "How alike two pictures look, by local brightness and contrast; 1 is identical."),
    ("Utility", "How well a simple model recognises the listed findings from the codes of patients it was not shown."),
    (
        "Levels J and patch grid P",
        "The two settings of DeepFixCX: 4^J scales and directions of edges, each summed up in P x P patches.",
    ),
    ("Prior", "HeartSpot's rule that says which pixels are kept: lines, the heart region, a median-filtered picture."),
    (
        "(epsilon, delta)",
        "The two numbers of a differential privacy guarantee: a mathematical promise about a randomised procedure. "
        "It is a different thing from measured resistance and is never computed from it.",
    ),
    ("Phantom", "Synthetic radiographs drawn by a computer. They show no patient, and prove nothing about patients."),
)


def attack_words(name: str) -> str:
    """What an attack does, in plain words; "" if it is not one of the package.

    >>> attack_words("MeanImage")
    'Ignores the code and guesses the average image of other patients: the best guess without the code.'
    """
    first, _, variant = name.partition(" ")
    return " ".join(filter(None, (ATTACKS.get(first, ""), VARIANTS.get(variant, "") if first in ATTACKS else "")))
