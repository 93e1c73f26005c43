"""Images in, codes on disk, and data lists."""

from monai_deepfixcx.data.code_store import CodeItem, CodeStore, Row, ShardProblem
from monai_deepfixcx.data.load_code import LoadCode, LoadCodeD, LoadCoded, LoadCodeDict

__all__ = ["CodeItem", "CodeStore", "LoadCode", "LoadCodeD", "LoadCodeDict", "LoadCoded", "Row", "ShardProblem"]
