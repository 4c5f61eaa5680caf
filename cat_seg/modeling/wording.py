"""How class names are put into words in evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from cat_seg.configuration.checks import is_template
from cat_seg.data.class_names import first_synonym

SYNONYMS = ("first", "average")


@dataclass(frozen=True)
class Wording:
    """Choice of the synonyms and prompts that represent a class in evaluation.

    Attributes:
        synonyms: "first" uses the first of a name's synonyms ("car, automobile"), as in training;
            "average" averages their L2-normalized text features and normalizes the mean.
        prompts: templates such as "a photo of a {}" that replace the model's own one. Their
            L2-normalized features are averaged, and the mean is normalized. Empty keeps the
            model's templates.

    Raises:
        ValueError: naming the argument, a value is none of these.
    """

    synonyms: str = "first"
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        if self.synonyms not in SYNONYMS:
            raise ValueError(f"synonyms is {self.synonyms!r}; choose {' or '.join(SYNONYMS)}")
        if not isinstance(self.prompts, tuple):
            raise ValueError(f"prompts is {self.prompts!r}; give a list of texts")
        for prompt in self.prompts:
            if not is_template(prompt):
                raise ValueError(
                    f"prompts has {prompt!r}; give texts with one {{}} each, such as "
                    "'a photo of a {}'"
                )


DEFAULT = Wording()


def all_synonyms(name: str) -> list[str]:
    """Return the distinct synonyms of a name like "road, route", the first one first."""
    synonyms = (synonym.strip() for synonym in name.split(","))
    return list(dict.fromkeys([first_synonym(name), *filter(None, synonyms)]))
