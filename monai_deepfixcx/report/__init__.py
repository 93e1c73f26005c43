"""The privacy card: what attacks got back from codes, what the codes are good for, and what was not tried."""

from monai_deepfixcx.report.card import (
    Card,
    card_schema,
    codec_entry,
    codec_name,
    merge_cards,
    privacy_card,
    read_card,
    write_card,
)
from monai_deepfixcx.report.page import render_page
from monai_deepfixcx.report.pictures import Gallery, draw_pictures
from monai_deepfixcx.report.utility import measure_utility

__all__ = [
    "Card",
    "Gallery",
    "card_schema",
    "codec_entry",
    "codec_name",
    "draw_pictures",
    "measure_utility",
    "merge_cards",
    "privacy_card",
    "read_card",
    "render_page",
    "write_card",
]
