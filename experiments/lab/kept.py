r"""Results of long work, kept in files: a run that was stopped goes on."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from experiments.lab.files import write_whole
from experiments.lab.sources import ROOT, hash_of


def kept(
    config: Any, module: str, name: str, make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    r"""What `make` gives, from a file where it was made before.

    The file lies in the folder `config.keep` of the checkout; where that is None,
    nothing is kept. A file is of one config and one state of the sources that `module`
    rests on.

    Args:
        config: That of the run, a dataclass with a field `keep`.
        module: The module that makes the result, by its dotted name.
        name: Of the result: what tells it from others of the same run.
        make: Makes it; what JSON can hold.
    """
    if config.keep is None:
        return make()
    told = json.dumps([asdict(config), hash_of(module)])
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    path = ROOT / config.keep / f"{name}-{digest}.json"
    if not path.is_file():
        write_whole(path, json.dumps(make()))
    return json.loads(path.read_text(encoding="utf-8"))
