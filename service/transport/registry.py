"""The loaded models by name and by language pair. Does not know how a model is loaded or what a call is."""

from collections.abc import Sequence

from service.engine.request import ModelInfo
from service.engine.translator import Translator
from service.errors import ConfigurationError, ModelNotFound
from service.transport.languages import choose_model, model_languages


class ModelRegistry:
    """Translators to choose from. Immutable: other models are another registry, so that a call keeps its own.

    Raises:
        ConfigurationError: two models have the same name, or the same language pair.
    """

    def __init__(self, translators: Sequence[Translator]) -> None:
        self._by_name: dict[str, Translator] = {}
        by_pair: dict[tuple[str, str], str] = {}
        for translator in translators:
            info = translator.info
            pairs = {(source.lower(), target.lower()) for source in info.sources for target in info.targets}
            if info.name in self._by_name:
                raise ConfigurationError(
                    f"two bundles hold a model of the same name, {info.name!r}; give one another with --name of "
                    "dragoman export or import-marian"
                )
            for source, target in sorted(pairs & by_pair.keys()):
                raise ConfigurationError(
                    f"models {by_pair[source, target]!r} and {info.name!r} both translate {source} to "
                    f"{target}; serve one of them"
                )
            self._by_name[info.name] = translator
            by_pair |= dict.fromkeys(pairs, info.name)

    @property
    def translators(self) -> list[Translator]:
        """All of them, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    @property
    def infos(self) -> list[ModelInfo]:
        """What they say of themselves, by name."""
        return [translator.info for translator in self.translators]

    def choose(self, model: str, source: str, target: str) -> Translator:
        """The model of that name, or where it is empty the one of that pair.

        Raises:
            ModelNotFound, LanguagePairNotLoaded: there is none. InvalidRequest: the named model is of other languages,
                or has several and none was named.
        """
        if not model:
            return self._by_name[choose_model(self.infos, source, target).name]
        if model not in self._by_name:
            raise ModelNotFound(f"no loaded model has the name {model!r}; loaded: {', '.join(sorted(self._by_name))}")
        model_languages(self._by_name[model].info, source, target)
        return self._by_name[model]
