"""The loaded models by name and by language pair. Does not know how a model is loaded or what a call is."""

from collections.abc import Sequence

from service.engine.request import ModelInfo
from service.engine.translator import Translator
from service.errors import ConfigurationError, InvalidRequest, ModelNotFound
from service.transport.languages import choose_model, covers


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
            pair = (info.source_language.lower(), info.target_language.lower())
            if info.name in self._by_name:
                raise ConfigurationError(f"two bundles hold a model of the same name, {info.name!r}")
            if pair in by_pair:
                raise ConfigurationError(
                    f"models {by_pair[pair]!r} and {info.name!r} both translate {info.source_language} to "
                    f"{info.target_language}; serve one of them"
                )
            self._by_name[info.name] = translator
            by_pair[pair] = info.name

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
            ModelNotFound, LanguagePairNotLoaded: there is none. InvalidRequest: the named model is of other languages.
        """
        if not model:
            return self._by_name[choose_model(self.infos, source, target).name]
        if model not in self._by_name:
            raise ModelNotFound(f"no loaded model has the name {model!r}; loaded: {', '.join(sorted(self._by_name))}")
        info = self._by_name[model].info
        for field, own, requested in (
            ("source_language", info.source_language, source),
            ("target_language", info.target_language, target),
        ):
            if requested and not covers(own, requested):
                raise InvalidRequest(field, f"model {model!r} has {own!r} here, not {requested!r}")
        return self._by_name[model]
