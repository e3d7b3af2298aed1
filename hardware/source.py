"""Reading the YAML sources of this folder into typed, closed models: an unknown or missing key is an error."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict

FOLDER = Path(__file__).parent


class Source(BaseModel):
    """Base of everything that is read from YAML here: closed and unchangeable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Model = TypeVar("Model", bound=Source)


def load(model: type[Model], path: Path) -> Model:
    """Read one YAML file as `model`; pydantic's ValidationError names each key that is wrong."""
    return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
