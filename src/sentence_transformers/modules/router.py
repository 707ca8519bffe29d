"""Router: different modules for different inputs, queries and documents above all.

    Router.for_query_document([StaticEmbedding(...)], [Transformer(...), Pooling(...)])

A route is a list of modules. Which route a batch takes is decided in this order: `route_mappings` for (task, modality),
then (task, any), then (any, modality), then (any, any); the route called like the task, or like the modality;
`default_route`, if there is no task; else an error that lists the routes. Texts have the modality "text".
`encode_query` sends task="query", `encode_document` task="document". One module may be part of several routes; it is
stored once.
"""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from torch import nn

from sentence_transformers import _names
from sentence_transformers.engine.inputs import as_batch, as_text, is_conversation, is_message, routed
from sentence_transformers.errors import InputError, ModelFormatError
from sentence_transformers.modules.base import InputModule, Module, run_module
from sentence_transformers.storage.files import Source, check_relative, reading
from sentence_transformers.storage.module_io import accepts, load_module, save_module
from sentence_transformers.storage.settings import check_settings

if TYPE_CHECKING:
    from sentence_transformers.encoders.base import BaseModel
    from sentence_transformers.protocols import AnyTokenizer

logger = logging.getLogger(__name__)

SHAPE = {
    "types": dict[str, str],
    "structure": dict[str, list[str]],
    "parameters": dict[str, Any] | None,
    "default_route": str | None,
    "allow_empty_key": bool,
    "route_mappings": dict[str, str] | None,
}


class Router(InputModule):
    """Send each batch through the modules of one route.

    Args:
        sub_modules: route name -> its modules, in order.
        default_route: route of batches whose task names none; default: the first route if `allow_empty_key`.
        allow_empty_key: whether batches without a task may take the first route when no default is given.
        route_mappings: (task, modality) -> route; None stands for any.

    Raises:
        InputError: if there is no route, or a named route does not exist.
    """

    forward_kwargs: ClassVar[set[str]] = {"task", "modality"}
    config_keys: ClassVar[list[str]] = ["default_route", "allow_empty_key", "route_mappings"]
    config_file_name = "router_config.json"
    takes_packed = True
    sees_following = True

    def __init__(
        self,
        sub_modules: dict[str, list[Module]],
        default_route: str | None = None,
        allow_empty_key: bool = True,
        route_mappings: dict[tuple[str | None, str | tuple[str, ...] | None], str] | None = None,
    ) -> None:
        super().__init__()
        if not sub_modules or not all(sub_modules.values()):
            raise InputError(f"A Router needs at least one route, each with at least one module; got {sub_modules!r}.")
        self.sub_modules = nn.ModuleDict({route: nn.Sequential(*parts) for route, parts in sub_modules.items()})
        self.default_route = next(iter(sub_modules)) if default_route is None and allow_empty_key else default_route
        self.allow_empty_key = allow_empty_key
        self.route_mappings = {(task, ordered(kind)): route for (task, kind), route in (route_mappings or {}).items()}
        for route in filter(None, (self.default_route, *self.route_mappings.values())):
            if route not in sub_modules:
                raise InputError(f"There is no route {route!r}; routes are {list(sub_modules)}.")

    @classmethod
    def for_query_document(
        cls,
        query_modules: list[Module],
        document_modules: list[Module],
        default_route: str | None = "document",
        allow_empty_key: bool = True,
    ) -> Self:
        """A router with the routes "query" and "document"."""
        return cls({"query": query_modules, "document": document_modules}, default_route, allow_empty_key)

    # ---- which way

    @property
    def routes(self) -> dict[str, list[Any]]:
        """Route name -> its modules, in order."""
        return {route: list(cast(nn.Sequential, parts)) for route, parts in self.sub_modules.items()}

    def route(self, task: str | None = None, modality: str | tuple[str, ...] | None = None) -> str:
        """Name of the route for a task and modality; `InputError` if there is none.

        A conversation goes where texts go, unless a mapping is for the modality "message".
        """
        modality = ordered(modality)
        if modality == "message" and all(kind != "message" for _, kind in self.route_mappings):
            modality = "text"
        for key in ((task, modality), (task, None), (None, modality), (None, None)):
            if key in self.route_mappings:
                return self.route_mappings[key]
        for name in (task, modality):
            if isinstance(name, str) and name in self.sub_modules:
                return name
        if task is None and self.default_route is not None:
            return self.default_route
        raise InputError(
            f"No route for task={task!r}; routes are {list(self.sub_modules)}. Use encode_query or encode_document, "
            f"pass task=..., or give the Router a default_route."
        )

    def known(self, modality: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        """A kind of input in its one form; `InputError` if no route is for it, and none for any kind."""
        modality = ordered(modality)
        known = {*self.modalities, *(kind for _, kind in self.route_mappings), *self.sub_modules}
        if None in known:
            return modality
        kinds = modality if isinstance(modality, tuple) else (modality,)
        if modality not in known and not known.issuperset(kinds):
            raise InputError(
                f"The modality {modality!r} is none that a route is for; there are {sorted(self.modalities)}, and the "
                f"routes {list(self.sub_modules)}."
            )
        return modality

    def parts(self, task: str | None = None, modality: str | tuple[str, ...] | None = None) -> list[Any]:
        """The modules of a route, in order."""
        return self.routes[self.route(task, modality)]

    # ---- texts -> features -> vectors

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: str | None = None,
        modality: str | tuple[str, ...] | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        """Features of the inputs by the input module of their route; they remember `task` and `modality`.

        Args:
            inputs: what the module takes, or one-key dictionaries {route: input}, all of one route.
        """
        items, task = self.unnamed(as_batch(inputs), task)
        modality = modality_of(items) if modality is None else self.known(modality)
        module = self.parts(task, modality)[0]
        given = {"task": task} if task is not None and accepts(module.preprocess, "task") else {}
        features = module.preprocess(items, prompt=prompt, **given, **kwargs)
        remembered = {"task": task, "modality": modality}
        features.update({key: value for key, value in remembered.items() if value is not None})
        return features

    def unnamed(self, inputs: list[Any], task: str | None = None) -> tuple[list[Any], str | None]:
        """Inputs of the form {route: input} without their route, and the route as the task; others as they are.

        Raises:
            InputError: if they name several routes, one that is not there, or another than `task`.
        """
        items, named = routed(inputs, self.sub_modules)
        if named is not None and task not in (None, named):
            raise InputError(f"The inputs name the route {named!r}, but task={task!r} is given. Give one of them.")
        return items, task if named is None else named

    def resolve(self, task: str | None = None, modality: str | tuple[str, ...] | None = None) -> Any:
        usual = "text" if "text" in self.modalities else None
        return self.parts(task, usual if modality is None else self.known(modality))[0]

    def forward(
        self,
        features: dict[str, Any],
        task: str | None = None,
        modality: str | tuple[str, ...] | None = None,
        following: nn.Module | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        """Run the modules of the batch's route; `following` is what comes after the router.

        Args:
            task, modality: win over those that the features remember.
        """
        task = features.get("task") if task is None else task
        modality = features.get("modality") if modality is None else self.known(modality)
        parts = self.parts(task, modality)
        for module, after in zip(parts, [*parts[1:], following], strict=True):
            features = run_module(module, features, {"task": task, "modality": modality, **kwargs}, after)
        return features

    # ---- what it is made of

    __repr__ = nn.Module.__repr__

    def extra_repr(self) -> str:
        return f"default_route={self.default_route!r}"

    def on_model_ready(self, model: BaseModel) -> None:
        for module in {id(m): m for parts in self.routes.values() for m in parts}.values():
            if isinstance(module, Module):
                module.on_model_ready(model)

    def get_embedding_dimension(self) -> int | None:
        """Output size of the routes: of the last module of each that reports one."""
        found = {route: output_dimension(parts) for route, parts in self.routes.items()}
        known = [dimension for dimension in found.values() if dimension is not None]
        if len(set(known)) > 1:
            logger.warning("The routes have different embedding dimensions, %s; the first one counts.", found)
        return next(iter(known), None)

    @property
    def _first(self) -> Any:
        return self.parts(None if self.default_route else next(iter(self.sub_modules)))[0]

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of the default route; None if its first module has none."""
        return getattr(self._first, "tokenizer", None)

    @tokenizer.setter
    def tokenizer(self, value: AnyTokenizer) -> None:
        self._first.tokenizer = value

    @property
    def modalities(self) -> list[str]:  # type: ignore[override]
        """Kinds of input of all routes."""
        return sorted({kind for parts in self.routes.values() for kind in getattr(parts[0], "modalities", ["text"])})

    @property
    def gives_types(self) -> bool:
        """Whether the tokenizer of the default route gives the types of tokens."""
        return getattr(self._first, "gives_types", False)

    @property
    def max_seq_length(self) -> int | None:
        """Longest input over the routes."""
        found = {route: getattr(parts[0], "max_seq_length", None) for route, parts in self.routes.items()}
        known = [length for length in found.values() if isinstance(length, int)]
        if len(set(known)) > 1:
            logger.warning("The routes have different max_seq_length, %s; the largest counts.", found)
        return max(known, default=None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        limited = [parts[0] for parts in self.routes.values() if limits_length(parts[0])]
        if not limited:
            logger.warning("No module of the Router has a max_seq_length that could be set; nothing is cut.")
        for module in limited:
            module.max_seq_length = value

    # ---- disk

    def save(self, output_path: str, safe_serialization: bool = True, *args, **kwargs) -> None:
        """Write each distinct module into a folder `{route}_{i}_{Class}` and the routes into router_config.json."""
        ids: dict[int, str] = {}
        structure: dict[str, list[str]] = {}
        types: dict[str, str] = {}
        for route, parts in self.routes.items():
            structure[route] = []
            for i, module in enumerate(parts):
                if id(module) not in ids:
                    name = ids[id(module)] = f"{route}_{i}_{type(module).__name__}"
                    types[name] = _names.saved_type(type(module))
                    folder = Path(output_path, name)
                    folder.mkdir(parents=True, exist_ok=True)
                    save_module(module, folder, safe_serialization)
                structure[route].append(ids[id(module)])
        parameters = {
            "default_route": self.default_route,
            "allow_empty_key": self.allow_empty_key,
            "route_mappings": {str(key): route for key, route in self.route_mappings.items()},
        }
        config = {"types": types, "structure": structure, "parameters": parameters}
        Path(output_path, self.config_file_name).write_text(json.dumps(config, indent=4), encoding="utf-8")

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        module_classes: Mapping[str, type[nn.Module]] | None = None,
        **kwargs,
    ) -> Self:
        """Load the routes and each distinct module once; older `Asym` folders too."""
        source = Source(model_name_or_path, subfolder, token, cache_folder, revision, local_files_only)
        return cls.from_source(source, module_classes=module_classes, **kwargs)

    @classmethod
    def from_source(
        cls, source: Source, *, module_classes: Mapping[str, type[nn.Module]] | None = None, **kwargs: Any
    ) -> Self:
        """`load` from the place that its arguments name."""
        config = source.json(cls.config_file_name) or source.json("config.json")
        if not config or not {"types", "structure"} <= config.keys():
            raise ModelFormatError(
                f"{source.name}/{source.subfolder} has no {cls.config_file_name} with types and structure."
            )
        file = source.place(cls.config_file_name)
        check_settings(SHAPE, config, file)
        trust = bool(kwargs.get("trust_remote_code"))
        modules = {}
        for name, dotted in config["types"].items():
            module_class = (module_classes or {}).get(name) or _names.find_class(dotted, source, trust)
            part = source.at(check_relative(name, "module folder"))
            modules[name] = load_module(module_class, part, kwargs)
        parameters = dict(config.get("parameters") or {})
        check_settings(SHAPE, parameters, file)
        with reading(file):
            mappings = {
                ast.literal_eval(key): route for key, route in (parameters.pop("route_mappings", None) or {}).items()
            }
            routes = {route: [modules[name] for name in names] for route, names in config["structure"].items()}
            known = {key: parameters[key] for key in ("default_route", "allow_empty_key") if key in parameters}
            return cls(routes, **known, route_mappings=mappings)


def output_dimension(parts: Sequence[Any]) -> int | None:
    """Output size of the last of some modules that reports one."""
    reporting = [module for module in parts if hasattr(module, "get_embedding_dimension")]
    return reporting[-1].get_embedding_dimension() if reporting else None


def limits_length(module: object) -> bool:
    """Whether an input module cuts texts at a length that can be set; a table of static vectors does not."""
    return hasattr(module, "max_seq_length") and not isinstance(module.max_seq_length, float)


def modality_of(inputs: list[Any]) -> str | None:
    """The kind of the inputs, as far as texts and conversations go."""
    if not inputs or as_text(inputs[0]) is not None:
        return "text"
    return "message" if is_message(inputs[0]) or is_conversation(inputs[0]) else None


def ordered(modality: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    """A modality in its one form: of several at once a sorted tuple."""
    return tuple(sorted(modality)) if isinstance(modality, (tuple, list)) else modality


Asym = Router
