"""Print the markdown tables of all results: ``python -m benchmarks.tables [folder]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    accuracy_nih,
    accuracy_phantom,
    attack_speed,
    attacks_nih,
    common,
    encode_gpu,
    encode_speed,
    end_to_end,
    private_training,
    scaling,
    training_speed,
)

TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    module.NAME: module.tables
    for module in (
        accuracy_phantom,
        accuracy_nih,
        training_speed,
        encode_speed,
        encode_gpu,
        end_to_end,
        scaling,
        attack_speed,
        attacks_nih,
        private_training,
    )
}


def main(arguments: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    folder = Path(given[0]) if given else common.RESULTS
    for name, tables in TABLES.items():
        path = folder / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text())
            machine, threads = result["machine"]["processor"], result["machine"]["torch_threads"]
            print(
                f"**{name}** (`python -m benchmarks.{name}`; {machine}, torch threads: {threads}; "
                f"torch {result['versions']['torch']})\n\n{tables(result)}\n"
            )


if __name__ == "__main__":
    main()
