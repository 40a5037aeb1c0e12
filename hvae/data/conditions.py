"""What a set of images can tell a model about each of them, and whether that is what it wants."""

from hvae.data.source import ImageSource
from hvae.errors import UserError
from hvae.models.config import ConditionConfig

_SHOWN = 8  # class names in a message


def complete_condition(config: ConditionConfig, source: ImageSource) -> ConditionConfig:
    """Returns the condition with class names or shape taken from the data.

    Of a condition that has them this is the check that a set tells what the model wants.

    Raises:
        UserError: if the data has no such condition, or has other classes or another shape.
    """
    if config.kind == "none":
        return config
    if config.kind == "class":
        names = class_names(source)
        if config.classes is None:
            return config.model_copy(update={"classes": names})
        # Labels without names may be given names.
        unnamed = source.classes is None and len(names) <= len(config.classes)
        if config.classes != names and not unnamed:
            raise UserError(
                f"model.condition.classes are {_listed(config.classes)}, but those of "
                f"{source.name} ({source.split}) are {_listed(names)}"
            )
        return config
    shape = _shape(config, source)
    if config.shape not in (None, shape):
        raise UserError(
            f"model.condition.shape is {config.shape}, but that of {source.name} ({source.split}) "
            f"is {shape}"
        )
    return config.model_copy(update={"shape": shape})


def class_names(source: ImageSource) -> tuple[str, ...]:
    """Returns the names of a set's classes; for labels without names, their numbers.

    Raises:
        UserError: if the set has no labels.
    """
    if source.labels is None:
        raise UserError(
            f"model.condition.kind is class, but {source.name} ({source.split}) has no labels; "
            "classes are the sub-folders of a folder, or labels of a .npz file"
        )
    return source.classes or tuple(map(str, range(int(source.labels.max()) + 1)))


def _shape(config: ConditionConfig, source: ImageSource) -> tuple[int, ...]:
    channels, *sides = source.shape
    if config.source == "mask":
        return channels + 1, *sides
    if config.source == "downsample":
        if any(side % config.factor for side in sides):
            raise UserError(
                f"model.condition.factor: {config.factor} does not divide "
                f"{' x '.join(map(str, sides))}"
            )
        return channels, *(side // config.factor for side in sides)
    if source.conditions is None:
        raise UserError(
            f"model.condition.kind is {config.kind}, but {source.name} ({source.split}) has no "
            "conditions; they are an array of a .npz file"
        )
    shape = tuple(source.conditions.shape[1:])
    if (len(shape) == 1) != (config.kind == "vector"):
        raise UserError(
            f"model.condition.kind is {config.kind}, but the conditions of {source.name} have "
            f"shape {shape}"
        )
    return shape


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
