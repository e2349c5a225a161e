"""Where things lie that tests read: the checkout, the shipped configuration, the public data."""

import os
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
#: public traces and measurements, by default in a folder beside the checkout; see `shared_file`
SHARED_DATA = Path(os.environ.get("KV_HARNESS_SHARED", ROOT.parent / "shared")) / "data"


def shipped(schema, group, name):
    """Return the instance of `schema` that `conf/<group>/<name>.yaml` describes."""
    config = OmegaConf.load(CONF / group / f"{name}.yaml")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), config))
