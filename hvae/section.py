"""The base of every configuration section: strict, frozen, and closed to unknown keys."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """One section of a configuration file.

    Strict, because lax validation turns `true` into 1 and `"3"` into 3; frozen, because a run
    records the configuration it started with; closed, because a misspelt key must not train for
    a week.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _sequences_as_tuples(cls, values: Any) -> Any:
        """YAML knows lists only; strict tuple fields refuse them."""
        if not isinstance(values, dict):
            return values
        return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
