"""The `model.likelihood:` section."""

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from hvae.section import Section

# What each kind reads beside the keys that all of them do.
_KEYS: dict[str, tuple[str, ...]] = {
    "bernoulli": (),
    "categorical": ("bits",),
    "discretized_gaussian": ("bits",),
    "discretized_logistic": ("bits",),
    "gaussian": ("bits",),
    "logistic_mixture": ("mixtures", "bits", "form", "coupled"),
}
_OPTIONAL = tuple(dict.fromkeys(key for keys in _KEYS.values() for key in keys))


class LikelihoodConfig(Section):
    """Distribution of the data given the decoder's last state; see docs/likelihoods.md.

    A key that the kind does not read is an error, unless it is null.
    """

    kind: Literal[
        "bernoulli",
        "categorical",
        "discretized_gaussian",
        "discretized_logistic",
        "gaussian",
        "logistic_mixture",
    ] = "logistic_mixture"
    """Literal name of the distribution."""

    mixtures: int = Field(default=10, ge=1)
    """Components of the mixture. Of logistic_mixture alone."""

    bits: int = Field(default=8, ge=1, le=8)
    """Bit depth that is modelled; the lowest 8 - bits bits of the data are dropped. Of all kinds
    but bernoulli."""

    form: Literal["exact", "compat"] = "exact"
    """Exact: masses of the levels sum to 1. Compat: the published VDVAE's formula, which at fewer
    than 8 bits is no likelihood; for parity and for comparison with published figures only. Of
    logistic_mixture alone."""

    coupled: bool = True
    """Whether each channel shifts the means of later ones within a pixel. Of logistic_mixture
    alone."""

    input_mean: float = 127.5
    """Subtracted from the pixels, 0..255, before they enter the encoder."""

    input_std: float = Field(default=127.5, gt=0.0)
    """What they are then divided by. Neither touches what is modelled."""

    def applies(self, key: str) -> bool:
        """Returns whether the kind reads a key."""
        return key not in _OPTIONAL or key in _KEYS[self.kind]

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        """Lets `mixtures=null` on a command line take back what a file sets for another kind."""
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if not (k in _OPTIONAL and v is None)}

    @model_validator(mode="after")
    def _refuse_keys_of_other_kinds(self) -> Self:
        wrong = [key for key in _OPTIONAL if key in self.model_fields_set and not self.applies(key)]
        if wrong:
            reads = ", ".join(_KEYS[self.kind]) or "none of them"
            raise ValueError(
                f"{', '.join(wrong)} {'does' if len(wrong) == 1 else 'do'} not apply to "
                f"{self.kind} (of {', '.join(_OPTIONAL)} it reads {reads}); leave out, or set to "
                "null"
            )
        return self

    @model_serializer(mode="wrap")
    def _keys_that_apply(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if self.applies(key)}
